"""Settings of the optimizer and the schedule of detectors and segmentors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from internimage.training.settings import OptimizerSettings


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
        steps: zero-based epochs, or iterations where `epochs` is 0.
        step_factor: factor of a step.
        power: exponent of "poly".
        min_lr: rate at the end of "poly".
        warmup_iterations: steps of linear warm-up.
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
