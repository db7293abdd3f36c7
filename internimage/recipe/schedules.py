"""Learning rates as functions of the step, and how long a run is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

LINEAR_END = 0.01


class Schedule(ABC):
    """Learning rates as a function of the step."""

    @property
    @abstractmethod
    def total_steps(self) -> int:
        """Steps of the whole run."""

    @property
    @abstractmethod
    def validate_every(self) -> int:
        """Steps between two validations; the last step of a run is followed by one anyway."""

    @abstractmethod
    def lr(self, step: int, multiplier: float = 1.0) -> float:
        """Return the learning rate of zero-based `step` for a group with this multiplier."""


@dataclass(frozen=True)
class EpochSchedule(Schedule):
    """Warm-up from a rate of its own, then cosine, linear or step decay; each step has the rate of the one before it.

    Args:
        kind: "cosine" to the minimum, "linear" to 1 % of the base, "step" by `step_factor` every `step_epochs`.
        epochs: passes over the training set.
        warmup_epochs: passes of linear warm-up.
        step_epochs: passes between two steps.
        step_factor: factor of a step.
        steps_per_epoch: optimizer steps of one epoch.
        base_lr: learning rate of a group with multiplier 1, already scaled with the batch.
        warmup_lr: learning rate at the first step, the same for every group.
        min_lr: learning rate at the end of the cosine, the same for every group.

    Source: timm 0.6.11 schedulers as the InternImage release drives them.
    """

    kind: Literal["cosine", "linear", "step"]
    epochs: int
    warmup_epochs: float
    step_epochs: int
    step_factor: float
    steps_per_epoch: int
    base_lr: float
    warmup_lr: float
    min_lr: float

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def validate_every(self) -> int:
        """Steps of one epoch."""
        return self.steps_per_epoch

    def lr(self, step: int, multiplier: float = 1.0) -> float:
        """Return the learning rate of zero-based `step` for a group with this multiplier.

        The published runs set the rate after a step from that step's own index, so each step trains with the value of
        the one before it, and the first two steps have the same; this function does the same.
        """
        t = max(step - 1, 0)
        base = self.base_lr * multiplier
        warmup = round(self.warmup_epochs * self.steps_per_epoch)
        if t < warmup:
            return self.warmup_lr + t * (base - self.warmup_lr) / warmup
        if self.kind == "cosine":
            if t >= self.total_steps:
                return self.min_lr
            return self.min_lr + 0.5 * (base - self.min_lr) * (1 + math.cos(math.pi * t / self.total_steps))
        if self.kind == "linear":
            progress = (t - warmup) / (self.total_steps - warmup)
            return base - (base - base * LINEAR_END) * progress
        return base * self.step_factor ** (t // (self.step_epochs * self.steps_per_epoch))


@dataclass(frozen=True)
class IterationSchedule(Schedule):
    """Step or polynomial decay under a linear warm-up; the rate is set before the step.

    Args:
        kind: "step" multiplies the rate with `step_factor` at each of `steps`, "poly" lets it fall to `min_lr`.
        total: units of the whole run.
        unit: optimizer steps of what `total`, `steps` and `every` count: those of an epoch, or 1.
        steps: units at whose start the rate falls.
        step_factor: factor of a step.
        power: exponent of "poly".
        min_lr: rate at the end of "poly".
        warmup_iterations: steps of warm-up.
        warmup_ratio: factor on the rate at the first step.
        every: units between two validations.
        base_lr: learning rate of a group with multiplier 1.

    Source: the learning rate hooks of mmcv 1.7 as the InternImage release configures them.
    """

    kind: Literal["step", "poly"]
    total: int
    unit: int
    steps: tuple[int, ...]
    step_factor: float
    power: float
    min_lr: float
    warmup_iterations: int
    warmup_ratio: float
    every: int
    base_lr: float

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.total * self.unit

    @property
    def validate_every(self) -> int:
        """Steps between two validations."""
        return self.every * self.unit

    def lr(self, step: int, multiplier: float = 1.0) -> float:
        """Return the learning rate of zero-based `step` for a group with this multiplier."""
        base = self.base_lr * multiplier
        if self.kind == "poly":
            rate = (base - self.min_lr) * (1 - step / self.total_steps) ** self.power + self.min_lr
        else:
            rate = base * self.step_factor ** sum(step // self.unit >= start for start in self.steps)
        if step < self.warmup_iterations:
            # The warm-up scales the rate that would be due now, which "poly" lowers already.
            rate *= 1 - (1 - step / self.warmup_iterations) * (1 - self.warmup_ratio)
        return rate
