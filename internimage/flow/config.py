"""What the configurations of all models have in common."""

from __future__ import annotations

from dataclasses import Field, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar

from internimage.backbones import BackboneConfig
from internimage.backbones.choice import Wanted
from internimage.data.images.normalize import Normalization, fitting_channels, for_channels
from internimage.ranges import Range, Ranged, check_ranges

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


@dataclass(frozen=True)
class ModelConfig(Ranged):
    """What the configuration of a model starts with; behind it stand `preprocess` and `class_names`, see `TaskConfig`.

    Args:
        backbone: architecture of the backbone.
        num_classes: K, at least 1.
    """

    backbone: BackboneConfig
    num_classes: Annotated[int, Range(1, 1_000_000)]

    def __post_init__(self: TaskConfig) -> None:
        check_ranges(self)
        object.__setattr__(self, "preprocess", fitting_channels(self.preprocess, self.backbone.in_chans))
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names must hold {self.num_classes} names, given {len(self.class_names)}")

    @property
    def num_blocks(self) -> int:
        """Blocks of all backbones."""
        return self.backbone.num_blocks

    @property
    def num_head_layers(self) -> int:
        """Layers of the head; none where the settings do not say."""
        return 0

    @property
    def rows(self) -> int:
        """Outputs of the last layer that stand for classes."""
        return self.num_classes

    def with_classes(self, num_classes: int, **changes: Any) -> Self:
        """Return the configuration for another number of classes, which have no names unless `changes` names them."""
        if num_classes == self.num_classes:
            return self
        return replace(self, **{"class_names": None, **changes}, num_classes=num_classes)


ConfigClass = type[TaskConfig] | type[BackboneConfig]
Config = TypeVar("Config", bound=TaskConfig)


def on_weights(found: Config, wanted: Wanted, preprocess: Normalization | None) -> Config:
    """Return the configuration to build on the weights of a model of the same kind.

    Args:
        found: the model that the weights hold.
        wanted: what the caller asks for.
        preprocess: how images become pixels, None for what the weights say.

    Raises:
        UnknownName: no such size.
        ValueError: the weights are of another backbone.
    """
    config = found if wanted.classes is None else found.with_classes(wanted.classes)
    backbone = wanted.merged(found.backbone)
    return replace(
        config,
        backbone=backbone,
        preprocess=preprocess or for_channels(found.preprocess, backbone.in_chans),
        class_names=wanted.class_names or config.class_names,
    )
