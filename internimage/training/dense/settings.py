"""Settings that detectors and segmentors share: model, data, optimizer, schedule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from internimage.errors import UnknownName
from internimage.training.overrides import check_ranges
from internimage.training.settings import EmaSettings, OptimizerSettings, Recipe, Start

_WHOLE, _BACKBONE = "model.weights", "model.backbone_weights"


@dataclass(frozen=True)
class DenseModelSettings:
    """What is trained.

    Args:
        architecture: name of the head, see the recipe of the task.
        backbone: a size of `internimage.backbones.VARIANTS`; for DINO also with "cb_" in front, a composite of two.
        in_chans: channels of the images; weights of RGB are adapted to others.
        num_classes: classes that the data set must have; None takes whatever it has.
        drop_path_rate: stochastic depth of the last block of the backbone, 0..1.
        through_dcnv4: run the operator of InternImage by the one of FlashInternImage; the function stays the same.
        backbone_weights: catalog name or file whose backbone the run starts from, None for a random start.
        weights: catalog name or file of a whole model of this kind to start from, instead of `backbone_weights`.
        start: "published" starts from the published model of the recipe's name, "recipe" from what the recipe says;
            "auto" takes the published model unless the data is what the recipe was made for, see
            `internimage.training.own_data`. A choice of weights comes first.
        reset_head: start the layers with a row for each class afresh; needed where `weights` has other classes.
        activation_checkpointing: recompute blocks in the backward pass, which saves memory.
        frozen_stages: -1 trains everything; k >= 0 freezes the stem and the first k levels.
        backend: operator backend.
    """

    architecture: str
    backbone: str
    in_chans: int = 3
    num_classes: int | None = None
    drop_path_rate: float = 0.1
    through_dcnv4: bool = False
    backbone_weights: str | None = None
    weights: str | None = None
    start: Start = "auto"
    reset_head: bool = False
    activation_checkpointing: bool = False
    frozen_stages: int = -1
    backend: str = "auto"

    def __post_init__(self) -> None:
        if self.weights is not None and self.backbone_weights is not None:
            raise ValueError(
                f"a run starts from model.weights or model.backbone_weights, given {self.weights} and "
                f"{self.backbone_weights}; set one of them to none"
            )


@dataclass(frozen=True)
class DenseDataSettings:
    """How the data set is read.

    Args:
        batch_size: images of one forward pass on one device.
        val_batch_size: images of one forward pass in validation.
        workers: reading processes; 0 reads in the training process.
        holdout: training images set aside for validation; 0 validates on the data set's own validation part.
        max_unreadable: broken images that are skipped and reported before the run stops.
        classes: names of the classes in the order of their numbers, separated by commas, or a file that holds them;
            None takes those of the data set.
    """

    batch_size: int = 2
    val_batch_size: int = 1
    workers: int = 4
    holdout: int = 0
    max_unreadable: int = 50
    classes: str | None = None


@dataclass(frozen=True)
class DenseOptimizerSettings(OptimizerSettings):
    """How weights move.

    Args:
        lr: learning rate of the head; not scaled with the batch.
        clip_norm: largest gradient norm of a step, 0 for no limit.
        rule: "layers" slows the backbone down block by block (`layer_decay`) and frees vectors and biases from weight
            decay; "backbone" gives the backbone `backbone_lr_multiplier` and decays everything.
        backbone_lr_multiplier: factor on the rates of the backbone; for the rule "backbone".
        offset_lr_multiplier: factor on the offsets of deformable attention in the head and of FlashInternImage's
            operator (the published runs leave those of InternImage's operator at the rate of their block).
        composite_layer_decay: let `layer_decay` reach the backbones of a composite; the published runs keep both at the
            full rate by a slip.
        slow_mask_embeddings: give Mask2Former's class and mask embeddings and its queries the rate of the stem, as the
            published runs do by a slip.
    """

    lr: float = 1e-4
    clip_norm: float = 0.0
    rule: Literal["layers", "backbone"] = "layers"
    backbone_lr_multiplier: float = 0.1
    offset_lr_multiplier: float = 1.0
    composite_layer_decay: bool = True
    slow_mask_embeddings: bool = False


@dataclass(frozen=True)
class DenseScheduleSettings:
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
    epochs: int = 12
    iterations: int = 0
    steps: tuple[int, ...] = (8, 11)
    step_factor: float = 0.1
    power: float = 1.0
    min_lr: float = 0.0
    warmup_iterations: int = 500
    warmup_ratio: float = 0.001
    validate_every: int = 1

    def __post_init__(self) -> None:
        if (self.epochs > 0) == (self.iterations > 0):
            raise ValueError(
                "a schedule has either schedule.epochs or schedule.iterations, the other one 0; "
                f"given {self.epochs} and {self.iterations}"
            )


@dataclass(frozen=True, kw_only=True)
class DenseRecipe(Recipe):
    """What the recipes of detectors and segmentors have in common."""

    model: DenseModelSettings
    data: DenseDataSettings = field(default_factory=DenseDataSettings)
    optimizer: DenseOptimizerSettings = field(default_factory=DenseOptimizerSettings)
    schedule: DenseScheduleSettings = field(default_factory=DenseScheduleSettings)
    ema: EmaSettings = field(default_factory=lambda: EmaSettings(decay=0.0))

    def implied(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what changes with some values: only one kind of start weights; steps move with the epochs."""
        changes: dict[str, Any] = {}
        for key, other in (_WHOLE, _BACKBONE), (_BACKBONE, _WHOLE):
            if values.get(key) is not None:
                changes[other] = None
        before, after = self.schedule.epochs, values.get("schedule.epochs", 0)
        if before and after and "schedule.steps" not in self.explicit:
            changes["schedule.steps"] = tuple(round(step * after / before) for step in self.schedule.steps)
        return changes

    def check(self, at_least: Mapping[str, float], shares: tuple[str, ...]) -> None:
        """Refuse settings that no run can use, those of `at_least` (key to smallest value) and `shares` among them.

        Raises:
            ValueError: a value is out of its range.
        """
        smallest: dict[str, Any] = {
            "model.in_chans": 1,
            "data.batch_size": 1,
            "data.val_batch_size": 1,
            "data.workers": 0,
            "data.holdout": 0,
            "data.max_unreadable": 0,
            "model.frozen_stages": -1,
            "optimizer.lr": 0,
            "schedule.epochs": 0,
            "schedule.iterations": 0,
            "schedule.warmup_iterations": 0,
            "schedule.min_lr": 0,
            "schedule.validate_every": 1,
            **at_least,
        }
        if self.model.num_classes is not None:
            smallest["model.num_classes"] = 1
        own = ("model.drop_path_rate", "schedule.warmup_ratio", "optimizer.offset_lr_multiplier")
        own += ("optimizer.backbone_lr_multiplier", "schedule.step_factor")
        check_ranges(self, at_least=smallest, shares=(*own, *shares))
        self.check_common()

    def check_architecture(self, known: Iterable[str]) -> None:
        """Raise UnknownName unless the architecture is one of these names."""
        if self.model.architecture not in (names := tuple(known)):
            raise UnknownName("architecture", self.model.architecture, names)

    def steps_per_epoch(self, batches_per_epoch: int) -> int:
        """Return the optimizer steps of an epoch.

        Raises:
            ValueError: the training set does not fill one step.
        """
        steps = batches_per_epoch // self.optimizer.accumulation_steps
        if steps == 0:
            raise ValueError(
                f"{batches_per_epoch} batches of {self.data.batch_size} images do not fill one step of "
                f"{self.optimizer.accumulation_steps} batches; lower optimizer.accumulation_steps or data.batch_size"
            )
        return steps
