"""The recipe of a classifier: every setting of a run, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from internimage.backbones import variant
from internimage.backbones.names import like, size_of
from internimage.classification.batches.augment import AugmentSettings
from internimage.classification.model import ClassifierConfig
from internimage.recipe import (
    Choice,
    DataSettings,
    Fraction,
    FromOne,
    FromZero,
    ModelSettings,
    OptimizerSettings,
    RateFromZero,
    Recipe,
)
from internimage.recipe.layer_rules import LayerRules
from internimage.recipe.recipe import CONFIG
from internimage.recipe.schedules import EpochSchedule
from internimage.settings import replaced

STRIDE = 32  # of the last map of the backbones


@dataclass(frozen=True)
class ClassificationDataSettings(DataSettings):
    """How the data set is read.

    Args:
        val_split: part to validate on, "val" or "test"; None is "val". Without one, training images are set aside.
        decode_side: pixels of the shorter side that are enough for training: larger JPEG files are decoded at a half, a
            quarter or an eighth of their size, never below it; 0 decodes all pixels, as published.
    """

    val_split: Literal["val", "test"] | None = None
    decode_side: FromZero = 0


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

    lr_per_512: RateFromZero = 5e-4
    warmup_lr_per_512: RateFromZero = 5e-7
    min_lr_per_512: RateFromZero = 5e-6
    dcn_lr_multiplier: RateFromZero = 1.0


@dataclass(frozen=True)
class EpochScheduleSettings:
    """How the learning rate moves.

    Args:
        kind: "cosine" to the minimum, "linear" to 1 % of the base, "step" by `step_factor` every `step_epochs`.
        epochs: passes over the training set.
        warmup_epochs: passes of linear warm-up; a tenth of the run at most unless the user chooses them.
        step_epochs: passes between two steps.
        step_factor: factor of a step.
    """

    kind: Literal["cosine", "linear", "step"] = "cosine"
    epochs: FromOne = 300
    warmup_epochs: RateFromZero = 20
    step_epochs: FromOne = 30
    step_factor: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ClassificationRecipe(Recipe):
    """Every setting of a run that trains a classifier.

    Args:
        data: how the data set is read.
        augment: how training images are varied.
        schedule: how long the run is and how the learning rate moves.
        label_smoothing: fraction of the target that is spread over all classes, 0..1.
    """

    task: ClassVar[str] = "classification"
    WARMUP: ClassVar[str] = "schedule.warmup_epochs"
    FINE_TUNING_EPOCHS: ClassVar[int] = 30
    SHORT: ClassVar[Mapping[str, str]] = {
        **Recipe.SHORT,
        "model.head": f"{CONFIG}.head",
        **{f"data.{name}": f"{CONFIG}.preprocess.{name}" for name in ("size", "mean", "std", "value_range")},
    }
    CHOICES: ClassVar[Mapping[str, Choice[Any]]] = {
        "model.backbone": Choice(
            str,
            lambda recipe: size_of(recipe.model.config.backbone),
            lambda recipe, name: with_backbone(recipe, name),
            "a size of `internimage.backbones.VARIANTS`.",
        )
    }

    model: ModelSettings[ClassifierConfig]
    data: ClassificationDataSettings = field(default_factory=ClassificationDataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    optimizer: ScaledOptimizerSettings = field(default_factory=ScaledOptimizerSettings)
    schedule: EpochScheduleSettings = field(default_factory=EpochScheduleSettings)
    label_smoothing: Fraction = 0.1

    @property
    def size(self) -> int:
        """Side of the square input in pixels."""
        return self.model.config.preprocess.size

    def check(self) -> None:
        """Refuse settings that do not go together.

        Raises:
            ValueError: no run can use them.
        """
        is_chosen = self.WARMUP in self.explicit  # else it is shortened when the length of the run is known
        if is_chosen and self.schedule.warmup_epochs >= self.schedule.epochs:
            raise ValueError(
                f"schedule.warmup_epochs ({self.schedule.warmup_epochs:g}) must be smaller than schedule.epochs "
                f"({self.schedule.epochs})"
            )
        if self.data.batch_size == 1 and self.size <= STRIDE and self.model.config.head == "conv":
            raise ValueError(
                f"data.batch_size must be at least 2 for the head conv and images of {self.size} pixels "
                "(data.size), given 1: its batch norm sees a 1 x 1 map, of which a single one has no variance; images "
                f"of more than {STRIDE} pixels can be taken one by one"
            )
        if self.model.config.head == "attention_pool_metadata" and (self.augment.mixup or self.augment.cutmix):
            raise ValueError(
                "images that were mixed have no date and no place, which the head attention_pool_metadata reads; set "
                "augment.mixup=0 and augment.cutmix=0"
            )
        if self.augment.kind == "shift" and self.augment.rand_augment:
            raise ValueError("augment.rand_augment works on one image at a time; it needs augment.kind=crop")

    def layer_rules(self) -> LayerRules:
        """Return how fast each part of the model learns; the published runs slow down offsets and gates, not masks."""
        settings = self.optimizer
        slows = settings.layer_decay != 1.0
        return LayerRules(
            settings.layer_decay,
            settings.weight_decay,
            head_is_layer=False,
            norms_are_layers=False,
            slow_parts=(".dcn.offset.", ".dcn.center_feature_scale_proj.") if slows else (),
            slow_factor=settings.dcn_lr_multiplier,
        )

    def rates(self, steps_per_epoch: int, *, world: int = 1) -> EpochSchedule:
        """Return the learning rates; all three are scaled with the images of one step over 512."""
        settings, schedule = self.optimizer, self.schedule
        scale = self.data.batch_size * world / 512 * settings.accumulation_steps
        return EpochSchedule(
            schedule.kind,
            schedule.epochs,
            schedule.warmup_epochs,
            schedule.step_epochs,
            schedule.step_factor,
            steps_per_epoch,
            settings.lr_per_512 * scale,
            settings.warmup_lr_per_512 * scale,
            settings.min_lr_per_512 * scale,
        )

    def warmup_unit(self, steps_per_epoch: int) -> int:
        """Return the steps of what the warm-up counts."""
        return steps_per_epoch


def with_backbone(recipe: ClassificationRecipe, name: str) -> ClassificationRecipe:
    """Return a recipe for another size.

    Raises:
        UnknownName: no such size.
    """
    config = recipe.model.config
    changed = replace(config, backbone=like(variant(name), config.backbone))
    return replaced(recipe, {CONFIG: changed})
