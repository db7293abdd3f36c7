"""What the configurations of all models have in common."""

from __future__ import annotations

from dataclasses import Field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from internimage.backbones import BackboneConfig
from internimage.data.images.normalize import Normalization

if TYPE_CHECKING:
    from typing_extensions import Self


class TaskConfig(Protocol):
    """What the configurations of all models have: each is a frozen dataclass with everything to rebuild a model."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    header_task: ClassVar[str]  # what the header of our files calls models of this kind

    @property
    def backbone(self) -> BackboneConfig:
        """Architecture of the backbone, or of each one of several."""
        ...

    @property
    def num_classes(self) -> int:
        """Classes that the model tells apart."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """A name for each class, or None."""
        ...

    @property
    def preprocess(self) -> Normalization:
        """How images become pixels."""
        ...

    @property
    def kind(self) -> str:
        """Layout of the parameters: which rules turn their names into the original's."""
        ...

    @property
    def rows(self) -> int:
        """Outputs of the last layer that stand for classes."""
        ...

    @property
    def num_blocks(self) -> int:
        """Blocks of all backbones."""
        ...

    @property
    def num_head_layers(self) -> int:
        """Layers of the head where the settings say how many there are."""
        ...

    def with_classes(self, num_classes: int) -> Self:
        """Return the configuration for another number of classes; names survive where the classes do."""
        ...
