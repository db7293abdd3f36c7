"""The running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from internimage.recipe import EmaSettings


class Average(Protocol):
    """A running average of weights."""

    def update_parameters(self, model: nn.Module, /) -> None:
        """Move towards the present weights."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return what `load_state_dict` takes: "n_averaged", and the weights below "module."."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> object:
        """Take over what `state_dict` returned."""
        ...


def decay_at(update: int, settings: EmaSettings) -> float:
    """Return the decay of the update with this number, counted from 1: constant, or rising to it."""
    decay = settings.decay
    if settings.warmup:
        decay = min(decay, (1 + update) / (10 + update))
    if settings.follow_steps:
        decay *= 1 - math.exp(-update / settings.follow_steps)
    return decay


def build_ema(model: nn.Module, settings: EmaSettings) -> AveragedModel:
    """Return a copy of `model` that follows it: `ema.update_parameters(model)` after each step, `ema.module` to use.

    Floating buffers are averaged like parameters; counters are copied.

    Args:
        model: what is averaged; the copy starts with its present values.
        settings: decay; must be on.
    """

    def average(old: Sequence[Tensor], new: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        decay = decay_at(int(num_averaged), settings)
        if old[0].is_floating_point():
            get_ema_multi_avg_fn(decay)(list(old), list(new), num_averaged)
        else:
            for kept, present in zip(old, new, strict=True):
                kept.copy_(present)

    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    ema.n_averaged.fill_(1)  # torch would copy the model at count 0; the average is to start from the initial weights
    ema.module.requires_grad_(False)
    return ema.eval()
