"""The recipe of a detector: every setting of a run, typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from internimage.backbones.config import COMPOSITE_PREFIX
from internimage.detection import DETECTORS, SMALL_DETECTORS, PreprocessConfig
from internimage.detection.batches.pipelines import PIPELINES
from internimage.errors import UnknownName
from internimage.evaluation.object_metrics import METRICS, Metric
from internimage.training.dense.settings import DenseDataSettings, DenseModelSettings, DenseRecipe
from internimage.training.overrides import setting

ARCHITECTURES = {**DETECTORS, **SMALL_DETECTORS}
OWN = "own"


@dataclass(frozen=True)
class DetectionModelSettings(DenseModelSettings):
    """What is trained.

    Args:
        architecture: a detector of `internimage.detection.DETECTORS` or `SMALL_DETECTORS`: "mask_rcnn", "dino", ...
        learn_masks: give R-CNNs their mask head; a run on data without masks goes without it unless the user chooses.
        max_per_image: largest number of objects in an answer; None keeps the detector's.
        denoising_queries: denoising queries of DINO; None keeps the detector's.
        feedforward_slices: pieces into which hidden layers of DINO are cut, which saves memory and changes nothing
            else.
    """

    learn_masks: bool = True
    max_per_image: int | None = None
    denoising_queries: int | None = None
    feedforward_slices: int = 1


@dataclass(frozen=True)
class DetectionDataSettings(DenseDataSettings):
    """How the data set is read.

    Args:
        val_split: part to validate on, "val" or "test"; None is "val". Without one, training images are set aside.
        metric: what validation measures, see `internimage.detection.evaluate.evaluate_detection`.
        keep_empty: also train on images without an object; the published runs leave them out, as "auto" does in every
            layout but OpenImages.
        balance_threshold: share of the images from which on a class is common enough; images of rarer classes are
            repeated, see `internimage.detection.batches.grouping.class_balanced`; 0 for none.
    """

    val_split: Literal["val", "test"] | None = None
    metric: Metric = "coco"
    keep_empty: Literal["auto", "yes", "no"] = "auto"
    balance_threshold: float = 0.0


@dataclass(frozen=True)
class DetectionAugmentSettings:
    """How training images are varied.

    Args:
        pipeline: a published pipeline of `detection.batches.pipelines.PIPELINES`, or "own", which the other settings
            describe.
        shorter_side: smallest and largest limit of the shorter side in pixels.
        longer_side: limit of the longer side in pixels.
        smallest_crop: smallest share of height and width that is kept, 0..1; 1 for no crops.
        flip: how often an image is mirrored, 0..1; 0 where left and right differ.
    """

    pipeline: str = "3x"
    shorter_side: tuple[int, int] = (480, 800)
    longer_side: int = 1333
    smallest_crop: float = 1.0
    flip: float = 0.5


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe(DenseRecipe):
    """Every setting of a run that trains a detector.

    Args:
        augment: how training images are varied.
        preprocess: how the finished model, and validation, reads images.
        published_box_ap: box AP that the recipe is known to reach, 0..1, or None.
        published_mask_ap: mask AP that the recipe is known to reach, 0..1, or None.
    """

    task = "detection"

    model: DetectionModelSettings
    data: DetectionDataSettings = field(default_factory=DetectionDataSettings)
    augment: DetectionAugmentSettings = field(default_factory=DetectionAugmentSettings)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    published_box_ap: float | None = None
    published_mask_ap: float | None = None

    def __post_init__(self) -> None:
        at_least = {"model.feedforward_slices": 1, "augment.longer_side": 1}
        optional = ("model.max_per_image", "model.denoising_queries")
        at_least |= {key: 1 for key in optional if setting(self, key) is not None}
        self.check(at_least, ("augment.smallest_crop", "augment.flip", "data.balance_threshold"))
        self.check_architecture(ARCHITECTURES)
        if self.augment.pipeline not in (OWN, *PIPELINES):
            raise UnknownName("pipeline", self.augment.pipeline, (OWN, *PIPELINES))
        if self.data.metric not in METRICS:
            raise UnknownName("metric", self.data.metric, METRICS)
        if self.model.backbone.startswith(COMPOSITE_PREFIX) and not self.is_dino:
            raise ValueError(f"a composite backbone goes with DINO, given {self.model.architecture!r}")

    @property
    def is_dino(self) -> bool:
        """Whether the detector is a DINO."""
        return self.model.architecture.startswith("dino")
