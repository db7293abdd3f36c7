"""The recipe of a classifier: every setting of a run, typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from internimage.classification.head import HeadKind
from internimage.training.overrides import check_ranges
from internimage.training.settings import OptimizerSettings, Recipe, Start

STRIDE = 32  # of the last map of the backbones


@dataclass(frozen=True)
class ModelSettings:
    """What is trained.

    Args:
        backbone: a size of `internimage.backbones.VARIANTS`.
        head: "conv", "attention_pool" or "attention_pool_metadata".
        in_chans: channels of the images; weights of RGB are adapted to others.
        drop_path_rate: stochastic depth of the last block, 0..1.
        weights: catalog name or file to start from, None for a random start.
        start: "published" starts from the published model of the recipe's name, "recipe" from what the recipe says;
            "auto" takes the published model unless the data is what the recipe was made for, see
            `internimage.training.own_data`. A choice of `weights` comes first.
        reset_head: start with a new head; needed where the weights have another number of classes.
        activation_checkpointing: recompute blocks in the backward pass, which saves memory.
        frozen_stages: -1 trains everything; k >= 0 freezes the stem and the first k levels.
        backend: operator backend.
    """

    backbone: str
    head: HeadKind = "conv"
    in_chans: int = 3
    drop_path_rate: float = 0.1
    weights: str | None = None
    start: Start = "auto"
    reset_head: bool = False
    activation_checkpointing: bool = False
    frozen_stages: int = -1
    backend: str = "auto"


@dataclass(frozen=True)
class DataSettings:
    """How the data set is read.

    Args:
        size: side of the square input in pixels.
        batch_size: images of one forward pass on one device.
        workers: reading processes; 0 reads in the training process.
        holdout: training images set aside for validation; 0 validates on the data set's own validation part.
        max_unreadable: broken images that are skipped and reported before the run stops.
        val_split: part to validate on, "val" or "test"; None is "val". Without one, training images are set aside.
        mean: mean of each channel of pixels scaled to 0..1; None for those of ImageNet, or their average for other
            channels than RGB.
        std: standard deviation of each channel, likewise.
        value_range: values of black and white in images of more than 8 bits, for example 0,4095 for 12 bits.
    """

    size: int = 224
    batch_size: int = 128
    workers: int = 8
    holdout: int = 0
    max_unreadable: int = 50
    val_split: Literal["val", "test"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    value_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class AugmentSettings:
    """How training images are varied.

    Args:
        kind: "crop" cuts and resizes random regions (ImageNet, one image at a time); "shift" moves the whole
            image by a few pixels (a batch at a time; keeps the resized training set in memory).
        crop_scale: smallest and largest share of the image that "crop" keeps.
        shift_pixels: largest move of "shift" in input pixels.
        horizontal_flip: probability.
        rand_augment: policy in timm's notation, "" for none; for "crop" only.
        erase_probability: probability that a random box is overwritten with noise.
        mixup: alpha of mixup, 0 for none.
        cutmix: alpha of CutMix, 0 for none.
        mix_probability: probability that a batch is mixed at all.
        mix_switch_probability: probability of CutMix where both are on.
    """

    kind: Literal["crop", "shift"] = "crop"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    shift_pixels: int = 4
    horizontal_flip: float = 0.5
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    erase_probability: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_probability: float = 1.0
    mix_switch_probability: float = 0.5


@dataclass(frozen=True)
class ScaledOptimizerSettings(OptimizerSettings):
    """How weights move, with rates for 512 images in a step.

    Args:
        lr_per_512: learning rate for 512 images in one step; scaled with the true number, as are the next two.
        warmup_lr_per_512: learning rate at the first step.
        min_lr_per_512: learning rate at the end.
        dcn_lr_multiplier: factor on the operator's offset and gate layers; acts with `layer_decay` < 1 only, as in
            the original.
    """

    lr_per_512: float = 5e-4
    warmup_lr_per_512: float = 5e-7
    min_lr_per_512: float = 5e-6
    dcn_lr_multiplier: float = 1.0


@dataclass(frozen=True)
class ScheduleSettings:
    """How the learning rate moves.

    Args:
        kind: "cosine" to the minimum, "linear" to 1 % of the base, "step" by `step_factor` every `step_epochs`.
        epochs: passes over the training set.
        warmup_epochs: passes of linear warm-up; a tenth of the run at most unless the user chooses them.
        step_epochs: passes between two steps.
        step_factor: factor of a step.
    """

    kind: Literal["cosine", "linear", "step"] = "cosine"
    epochs: int = 300
    warmup_epochs: float = 20
    step_epochs: int = 30
    step_factor: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ClassificationRecipe(Recipe):
    """Every setting of a run that trains a classifier.

    Args:
        published_top1: accuracy that the recipe is known to reach, 0..1, or None.
        label_smoothing: share of the target that is spread over all classes, 0..1.
    """

    task = "classification"

    model: ModelSettings
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    optimizer: ScaledOptimizerSettings = field(default_factory=ScaledOptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    label_smoothing: float = 0.1
    published_top1: float | None = None

    def __post_init__(self) -> None:
        _check(self)


def _check(recipe: ClassificationRecipe) -> None:
    """Refuse settings that no run can use."""
    at_least = {
        "model.in_chans": 1,
        "data.size": 1,
        "data.batch_size": 1,
        "data.workers": 0,
        "data.holdout": 0,
        "data.max_unreadable": 0,
        "augment.shift_pixels": 0,
        "augment.mixup": 0,
        "augment.cutmix": 0,
        "optimizer.lr_per_512": 0,
        "optimizer.warmup_lr_per_512": 0,
        "optimizer.min_lr_per_512": 0,
        "schedule.epochs": 1,
        "schedule.warmup_epochs": 0,
        "schedule.step_epochs": 1,
    }
    shares = ["augment.horizontal_flip", "augment.erase_probability", "augment.mix_probability"]
    shares += ["augment.mix_switch_probability", "model.drop_path_rate", "label_smoothing"]
    check_ranges(recipe, at_least=at_least, shares=shares)
    recipe.check_common()
    is_chosen = "schedule.warmup_epochs" in recipe.explicit  # else it is shortened when the length of the run is known
    if is_chosen and recipe.schedule.warmup_epochs >= recipe.schedule.epochs:
        raise ValueError(
            f"schedule.warmup_epochs ({recipe.schedule.warmup_epochs:g}) must be smaller than schedule.epochs "
            f"({recipe.schedule.epochs})"
        )
    if recipe.data.batch_size == 1 and recipe.data.size <= STRIDE and recipe.model.head == "conv":
        raise ValueError(
            f"data.batch_size must be at least 2 for the head conv and images of {recipe.data.size} pixels "
            f"(data.size), given 1: its batch norm sees a 1 x 1 map, of which a single one has no variance; images of "
            f"more than {STRIDE} pixels can be taken one by one"
        )
    if recipe.augment.kind == "shift" and recipe.augment.rand_augment:
        raise ValueError("augment.rand_augment works on one image at a time; it needs augment.kind=crop")
