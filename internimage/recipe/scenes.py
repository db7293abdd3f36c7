"""What the recipes of detectors and segmentors have in common: scenes in which everything is to be found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from internimage.ranges import Range
from internimage.recipe.layer_rules import LayerRules
from internimage.recipe.recipe import CONFIG, Recipe
from internimage.recipe.schedules import IterationSchedule
from internimage.recipe.sections import (
    ConfigT,
    DataSettings,
    EmaSettings,
    Fraction,
    FromOne,
    FromZero,
    ModelSettings,
    OptimizerSettings,
    RateFromZero,
    ValidationReading,
)

if TYPE_CHECKING:
    from typing_extensions import Self

_WHOLE, _BACKBONE = "model.weights", "model.backbone_weights"
_PREPROCESS = ("mean", "std", "value_range")


@dataclass(frozen=True)
class SceneModelSettings(ModelSettings[ConfigT]):
    """What is trained, and what it starts from.

    Args:
        backbone_weights: catalog name or file whose backbone the run starts from, None for a random start.
        num_classes: classes that the data set must have; None takes whatever it has.
    """

    backbone_weights: str | None = None
    num_classes: Annotated[int, Range(1, math.inf)] | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and self.backbone_weights is not None:
            raise ValueError(
                f"a run starts from model.weights or model.backbone_weights, given {self.weights} and "
                f"{self.backbone_weights}; set one of them to none"
            )

    @property
    def start_backbone(self) -> str | None:
        """Whose backbone alone the run starts from, None for another start."""
        return self.backbone_weights

    @property
    def source(self) -> str:
        """What the weights of the first step are, in words."""
        own = self.backbone_weights
        return super().source if own is None else f"{own} (backbone only; the head is random)"

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Raise ValueError if the data set has other classes than the recipe asks for."""
        if self.num_classes not in (None, len(class_names)):
            shown = ", ".join(class_names[:5]) + (", ..." if len(class_names) > 5 else "")
            raise ValueError(
                f"model.num_classes is {self.num_classes}, but the data set has {len(class_names)} classes ({shown}); "
                "leave model.num_classes out to take those of the data set"
            )


def starting_from(
    start: str | None, config: ConfigT, *, whole: bool, reset_head: bool, checkpointing: bool
) -> SceneModelSettings[ConfigT]:
    """Return what is trained when it starts from a whole model, or from the backbone of one."""
    model, backbone = (start, None) if whole else (None, start)
    return SceneModelSettings(
        config, model, reset_head=reset_head, activation_checkpointing=checkpointing, backbone_weights=backbone
    )


@dataclass(frozen=True)
class SceneDataSettings(DataSettings):
    """How the data set is read.

    Args:
        val_batch_size: images of one forward pass in validation.
        classes: names of the classes in the order of their indices, separated by commas, or a file that holds them;
            None takes those of the data set.
    """

    batch_size: FromOne = 2
    workers: FromZero = 4
    val_batch_size: FromOne = 1
    classes: str | None = None

    def in_validation(self) -> ValidationReading:
        """Return how validation reads its images."""
        return ValidationReading(
            batch_size=self.val_batch_size, workers=self.workers, max_unreadable=self.max_unreadable
        )


@dataclass(frozen=True)
class SceneOptimizerSettings(OptimizerSettings):
    """How weights move.

    Args:
        lr: learning rate of the head; not scaled with the batch.
        rule: "layers" slows the backbone down block by block (`layer_decay`) and frees vectors and biases from weight
            decay; "backbone" gives the backbone `backbone_lr_multiplier` and decays everything.
        backbone_lr_multiplier: factor on the rates of the backbone; for the rule "backbone".
        offset_lr_multiplier: factor on the offsets of deformable attention in the head and of FlashInternImage's
            operator (the published runs leave those of InternImage's operator at the rate of their block).
    """

    lr: RateFromZero = 1e-4
    clip_norm: RateFromZero = 0.0
    rule: Literal["layers", "backbone"] = "layers"
    backbone_lr_multiplier: Fraction = 0.1
    offset_lr_multiplier: Fraction = 1.0


@dataclass(frozen=True)
class SceneScheduleSettings:
    """How long a run is and how the learning rate moves.

    Args:
        kind: "step" multiplies the rate with `step_factor` at the start of each epoch of `steps`, "poly" lets it fall
            to `min_lr` as (1 - progress) ** `power`.
        epochs: passes over the training set; 0 counts `iterations`.
        iterations: steps of the run where `epochs` is 0.
        steps: zero-based epochs, or iterations where `epochs` is 0; they move along with `epochs`.
        step_factor: factor of a step.
        power: exponent of "poly".
        min_lr: rate at the end of "poly".
        warmup_iterations: steps of linear warm-up; a tenth of the run at most unless the user chooses them.
        warmup_ratio: factor on the rate at the first step, 0..1.
        validate_every: epochs, or iterations where `epochs` is 0, between two validations.
    """

    kind: Literal["step", "poly"] = "step"
    epochs: FromZero = 12
    iterations: FromZero = 0
    steps: tuple[int, ...] = (8, 11)
    step_factor: Fraction = 0.1
    power: float = 1.0
    min_lr: RateFromZero = 0.0
    warmup_iterations: FromZero = 500
    warmup_ratio: Fraction = 0.001
    validate_every: FromOne = 1

    def __post_init__(self) -> None:
        if (self.epochs > 0) == (self.iterations > 0):
            raise ValueError(
                "a schedule has either schedule.epochs or schedule.iterations, the other one 0; "
                f"given {self.epochs} and {self.iterations}"
            )


@dataclass(frozen=True, kw_only=True)
class SceneRecipe(Recipe):
    """What the recipes of detectors and segmentors have in common."""

    WARMUP: ClassVar[str] = "schedule.warmup_iterations"
    # Settings of `optimizer` that only the other task has now; older files hold them without effect.
    FORMER: ClassVar[frozenset[str]] = frozenset()
    SHORT: ClassVar[Mapping[str, str]] = {
        **Recipe.SHORT,
        **{f"preprocess.{name}": f"{CONFIG}.preprocess.{name}" for name in _PREPROCESS},
    }

    model: SceneModelSettings[Any]
    data: SceneDataSettings = field(default_factory=SceneDataSettings)
    optimizer: SceneOptimizerSettings = field(default_factory=SceneOptimizerSettings)
    schedule: SceneScheduleSettings = field(default_factory=SceneScheduleSettings)
    ema: EmaSettings = field(default_factory=lambda: EmaSettings(decay=0.0))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Rebuild a recipe from what `to_dict` returned, in this release or an earlier one, see `Recipe.from_dict`."""
        optimizer = plain.get("optimizer")
        if isinstance(optimizer, Mapping):
            plain = {**plain, "optimizer": {key: optimizer[key] for key in optimizer if key not in cls.FORMER}}
        return super().from_dict(plain)

    def implied(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what changes with some values: only one kind of start weights; steps move with the epochs."""
        changes = super().implied(values)
        for key, other in (_WHOLE, _BACKBONE), (_BACKBONE, _WHOLE):
            if values.get(key) is not None and values.get(other) is None:
                changes[other] = None
        before, after = self.schedule.epochs, values.get("schedule.epochs", 0)
        if before and after and "schedule.steps" not in self.explicit:
            changes["schedule.steps"] = tuple(round(step * after / before) for step in self.schedule.steps)
        return changes

    def layer_rules(self) -> LayerRules:
        """Return how fast each part of the model learns."""
        settings = self.optimizer
        return LayerRules(
            settings.layer_decay,
            settings.weight_decay,
            slow_parts=(".sampling_offsets.", ".offset_mask."),
            slow_factor=settings.offset_lr_multiplier,
            backbone_factor=settings.backbone_lr_multiplier if settings.rule == "backbone" else None,
            never_decay=(".sampling_offsets.",),
        )

    def rates(self, steps_per_epoch: int, *, world: int = 1) -> IterationSchedule:
        """Return the learning rates of a run."""
        schedule = self.schedule
        return IterationSchedule(
            schedule.kind,
            total=schedule.epochs or schedule.iterations,
            unit=steps_per_epoch if schedule.epochs else 1,
            steps=schedule.steps,
            step_factor=schedule.step_factor,
            power=schedule.power,
            min_lr=schedule.min_lr,
            warmup_iterations=schedule.warmup_iterations,
            warmup_ratio=schedule.warmup_ratio,
            every=schedule.validate_every,
            base_lr=self.optimizer.lr,
        )
