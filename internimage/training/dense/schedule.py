"""The learning rate of a detector or segmentor at every step: step or polynomial decay under a linear warm-up."""

from __future__ import annotations

from dataclasses import dataclass

from internimage.training.dense.settings import DenseScheduleSettings
from internimage.training.schedule import Schedule


@dataclass(frozen=True)
class IterationSchedule(Schedule):
    """Learning rates as a function of the step, set before the step.

    Args:
        settings: kind and lengths.
        steps_per_epoch: optimizer steps of one epoch.
        base_lr: learning rate of a group with multiplier 1.

    Source: the learning rate hooks of mmcv 1.7 as the InternImage release configures them.
    """

    settings: DenseScheduleSettings
    steps_per_epoch: int
    base_lr: float

    @property
    def _unit(self) -> int:
        """Steps of what `epochs`, `steps` and `validate_every` count."""
        return self.steps_per_epoch if self.settings.epochs else 1

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.settings.epochs * self.steps_per_epoch if self.settings.epochs else self.settings.iterations

    @property
    def validate_every(self) -> int:
        """Steps between two validations."""
        return self.settings.validate_every * self._unit

    def lr(self, step: int, multiplier: float = 1.0) -> float:
        """Return the learning rate of zero-based `step` for a group with this multiplier."""
        settings, base = self.settings, self.base_lr * multiplier
        if settings.kind == "poly":
            rate = (base - settings.min_lr) * (1 - step / self.total_steps) ** settings.power + settings.min_lr
        else:
            rate = base * settings.step_factor ** sum(step // self._unit >= start for start in settings.steps)
        if step < settings.warmup_iterations:
            # The warm-up scales the rate that would be due now, which "poly" lowers already.
            rate *= 1 - (1 - step / settings.warmup_iterations) * (1 - settings.warmup_ratio)
        return rate
