"""The learning rate of a classifier at every step: warm-up, then cosine, linear or step decay."""

from __future__ import annotations

import math
from dataclasses import dataclass

from internimage.training.classification.config import ScaledOptimizerSettings, ScheduleSettings
from internimage.training.schedule import Schedule

LINEAR_END = 0.01


@dataclass(frozen=True)
class EpochSchedule(Schedule):
    """Learning rates as a function of the step.

    Args:
        settings: kind and lengths in epochs.
        steps_per_epoch: optimizer steps of one epoch.
        base_lr: learning rate of a group with multiplier 1, already scaled with the batch.
        warmup_lr: learning rate at the first step, the same for every group.
        min_lr: learning rate at the end of the cosine, the same for every group.

    Source: timm 0.6.11 schedulers as the InternImage release drives them.
    """

    settings: ScheduleSettings
    steps_per_epoch: int
    base_lr: float
    warmup_lr: float
    min_lr: float

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.settings.epochs * self.steps_per_epoch

    @property
    def validate_every(self) -> int:
        """Steps of one epoch."""
        return self.steps_per_epoch

    def lr(self, step: int, multiplier: float = 1.0) -> float:
        """Return the learning rate of zero-based `step` for a group with this multiplier.

        The published runs set the rate after a step from that step's own number, so each step trains with the value of
        the one before it, and the first two steps share theirs; this function does the same.
        """
        t = max(step - 1, 0)
        base = self.base_lr * multiplier
        warmup = round(self.settings.warmup_epochs * self.steps_per_epoch)
        if t < warmup:
            return self.warmup_lr + t * (base - self.warmup_lr) / warmup
        if self.settings.kind == "cosine":
            if t >= self.total_steps:
                return self.min_lr
            return self.min_lr + 0.5 * (base - self.min_lr) * (1 + math.cos(math.pi * t / self.total_steps))
        if self.settings.kind == "linear":
            progress = (t - warmup) / (self.total_steps - warmup)
            return base - (base - base * LINEAR_END) * progress
        return base * self.settings.step_factor ** (t // (self.settings.step_epochs * self.steps_per_epoch))


def build_schedule(
    settings: ScheduleSettings,
    optimizer: ScaledOptimizerSettings,
    *,
    steps_per_epoch: int,
    batch_size: int,
    world: int = 1,
) -> EpochSchedule:
    """Return the schedule of a run; all three rates are scaled with the images of one step over 512.

    Args:
        settings: kind and lengths.
        optimizer: rates for 512 images, and the number of accumulated batches.
        steps_per_epoch: optimizer steps of one epoch.
        batch_size: images of one forward pass on one device.
        world: devices that train together.
    """
    scale = batch_size * world / 512 * optimizer.accumulation_steps
    return EpochSchedule(
        settings,
        steps_per_epoch,
        optimizer.lr_per_512 * scale,
        optimizer.warmup_lr_per_512 * scale,
        optimizer.min_lr_per_512 * scale,
    )
