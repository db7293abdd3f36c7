"""What has gathered since the last validation: losses, steps, seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


class Since:
    """Running sums between two validations; part of the saved state.

    Args:
        device: where the losses are; they are read only when a row is written.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.first_bad = torch.tensor(-1, device=device)  # the step whose loss was the first that is not finite
        self.terms: dict[str, Tensor] = {}
        self.steps = 0
        self.seconds = 0.0

    def add(self, loss: Tensor, terms: Mapping[str, Tensor], *, share: float, step: int) -> None:
        """Count the loss of a batch of a step, and its terms, each of which counts `share`."""
        self.loss += loss.detach()
        is_first = (self.first_bad < 0) & ~torch.isfinite(self.loss)
        self.first_bad = torch.where(is_first, step, self.first_bad)
        for name, value in terms.items():
            kept = self.terms.get(name, torch.zeros_like(self.loss))
            self.terms[name] = kept + value.detach() * share

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Count the seconds of the block."""
        started = time.monotonic()
        yield
        self.seconds += time.monotonic() - started

    def state(self) -> dict[str, Any]:
        """Return the sums for `restore`."""
        return {"loss": self.loss, "terms": self.terms, "steps": self.steps, "seconds": self.seconds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self.loss.copy_(state["loss"])
        self.terms = {name: value.to(self.loss.device) for name, value in state["terms"].items()}
        self.steps, self.seconds = state["steps"], state["seconds"]
