"""The recipe of a segmentor: every setting of a run, typed."""

from __future__ import annotations

from dataclasses import dataclass, field

from internimage.segmentation import HEADS, PreprocessConfig, UperNetConfig
from internimage.segmentation.batches.augment import Augmentation
from internimage.training.dense.settings import DenseDataSettings, DenseModelSettings, DenseRecipe


@dataclass(frozen=True)
class SegmentationModelSettings(DenseModelSettings):
    """What is trained.

    Args:
        architecture: a head of `internimage.segmentation.HEADS`: "upernet", "segformer", "mask2former", ...
        classifier_rows: outputs of the last layer where they are more than the classes, as in the published models of
            street scenes; None for as many as classes.
        count_ignored_pixels: divide the loss of UperNet and SegFormer by all pixels, not only by those with a label, as
            the published runs do.
    """

    classifier_rows: int | None = None
    count_ignored_pixels: bool = False


@dataclass(frozen=True)
class SegmentationDataSettings(DenseDataSettings):
    """How the data set is read.

    Args:
        layout: see `internimage.data.label_maps.open.open_segmentation_dataset`; None recognizes it.
        train_split: part to train on; several are joined by "+".
        val_split: part to validate on. Without one, training images are set aside.
    """

    layout: str | None = None
    train_split: str = "train"
    val_split: str = "val"


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(DenseRecipe):
    """Every setting of a run that trains a segmentor.

    Args:
        augment: how training images are varied; its crop is the size of the batches.
        preprocess: how the finished model, and validation, reads images.
        published_miou: mIoU at one scale that the recipe is known to reach, 0..1, or None.
    """

    task = "segmentation"

    model: SegmentationModelSettings
    data: SegmentationDataSettings = field(default_factory=SegmentationDataSettings)
    augment: Augmentation = field(default_factory=Augmentation)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    published_miou: float | None = None

    def __post_init__(self) -> None:
        self.check({}, ())
        self.check_architecture(HEADS)
        if self.augment.crop_hw is None and self.data.batch_size > 1:
            raise ValueError("augment.crop_hw=none gives images of different sizes, which needs data.batch_size=1")

    def check_batch(self) -> None:
        """Refuse batches that the head cannot be trained on: no process sees the images of another one.

        Raises:
            ValueError: UperNet gets one image at a time.
        """
        head = HEADS[self.model.architecture]
        if isinstance(head, UperNetConfig) and self.data.batch_size < head.least_batch:
            raise ValueError(
                f"data.batch_size must be at least {head.least_batch} for the head {self.model.architecture}, given "
                f"{self.data.batch_size}: it averages a map to 1 x 1 and normalizes it over the batch, where one image "
                "has no variance (optimizer.accumulation_steps does not help). Where the memory ends, make "
                "augment.crop_hw smaller, set model.activation_checkpointing=true, or take another head"
            )
