"""Where and how a step runs: device, precision, gradients, and what several processes would exchange.

The training loop talks to the hardware through this class alone; training on many machines replaces it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from internimage.training.settings import RunSettings


def chosen_device(device: torch.device | str | None) -> torch.device:
    """Return a device; None takes the accelerator when there is one."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


class Engine:
    """One process on one device.

    Args:
        device: where it computes.
        settings: precision and threads.
    """

    rank = 0
    world = 1

    def __init__(self, device: torch.device, settings: RunSettings) -> None:
        self.device = device
        self.precision = settings.precision
        if settings.threads:
            torch.set_num_threads(settings.threads)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context of the forward pass."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        loss.backward()

    def step(self, optimizer: Optimizer, parameters: Iterable[nn.Parameter], *, clip_norm: float) -> None:
        """Limit the gradient norm (0: no limit), move the weights and clear the gradients."""
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def mean(self, value: Tensor) -> float:
        """Return the mean of a scalar over all processes."""
        return float(value)
