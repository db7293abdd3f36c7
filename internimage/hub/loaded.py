"""Types for what `load` and `create` take and return, so that checkers and editors know it.

Which task a name stands for is known when the code runs; a checker sees a model of any task, whose `predict` takes the
options of its task and returns a list of its results.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from internimage.backbones import BackboneConfig
from internimage.flow import ImageInput, TaskModel

if TYPE_CHECKING:
    from typing_extensions import Self

    from internimage.classification import ClassificationPreprocess
    from internimage.classification.head import HeadKind
    from internimage.detection import DetectionPreprocess
    from internimage.segmentation import SegmentationPreprocess
    from internimage.segmentation.config import HeadConfig

    Head = HeadKind | HeadConfig

    class LoadedModel(TaskModel[Any]):
        """A `Classifier`, a detector (`RCNN`, `DINO`) or a `Segmentor`."""

        config: Any
        backbone: Any

        def predict(self, images: Sequence[ImageInput], *, batch_size: int = 1, **options: Any) -> list[Any]:
            """Return one result for each image; see the model's own `predict` for its options."""
            ...

        def fuse(self, *, graphs: int = 0) -> Self:
            """Prepare for inference, see `InternImage.fuse`."""
            ...
else:
    LoadedModel = TaskModel


class CreateOptions(TypedDict, total=False):
    """The options of `create`, which explains them."""

    backbone: str | BackboneConfig | None
    num_classes: int | None
    class_names: Sequence[str] | None
    weights: str | PathLike[str] | None
    ema: bool | None
    head: Head | None
    preprocess: ClassificationPreprocess | DetectionPreprocess | SegmentationPreprocess | None
    in_chans: int | None
    layer_scale: float | Literal["published"] | None
    drop_path_rate: float | None
    out_indices: tuple[int, ...] | None
    frozen_stages: int
    activation_checkpointing: bool
    cache_dir: str | PathLike[str] | None
    offline: bool
    backend: str
