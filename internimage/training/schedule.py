"""What the training loop asks of a schedule: how long, how often to validate, and the learning rate of each step."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch.optim import Optimizer


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

    def apply(self, optimizer: Optimizer, step: int) -> float:
        """Set the rate of every parameter group for `step` and return the rate of multiplier 1."""
        for group in optimizer.param_groups:
            group["lr"] = self.lr(step, group["lr_multiplier"])
        return self.lr(step)
