"""A run that has diverged is stopped, and nothing of it replaces what was good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def first_not_finite(state: Mapping[str, Any]) -> str | None:
    """Return the name of the first tensor that holds NaN or an infinite number, None where all are finite.

    Args:
        state: tensors in dictionaries and lists of any depth; other values are passed over.

    Example:
        >>> first_not_finite({"model": {"weight": torch.tensor([1.0, float("nan")])}})
        'model weight'
    """
    tensors = [(name, value) for name, value in _tensors(state, "") if value.is_floating_point() and value.numel()]
    by_device: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for name, value in tensors:
        by_device.setdefault(value.device, []).append((name, torch.isfinite(value).all()))
    for entries in by_device.values():  # one answer for each device, since each makes an accelerator wait
        are_sound = torch.stack([is_sound for _, is_sound in entries]).tolist()
        if not all(are_sound):
            return entries[are_sound.index(False)][0].strip()
    return None


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value.detach()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors(inner, f"{name} {key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _tensors(inner, f"{name} {number}")


def diverged(what: str, *, step: int, total: int, lr: float, precision: str, kept: str) -> FloatingPointError:
    """Return the error of a run that cannot go on: where it stands, what is kept and what to try.

    Args:
        what: what is not finite.
        step: number of the last step.
        total: steps of the whole run.
        lr: learning rate of the step.
        precision: the setting run.precision.
        kept: what the folder of the run still holds.
    """
    other = "" if precision == "fp32" else ", or with run.precision=fp32"
    return FloatingPointError(
        f"{what} at step {step} of {total} (learning rate {lr:.3g}, precision {precision}), so the run cannot go on; "
        f"{kept}. Start in another folder with a lower learning rate (optimizer.lr...){other}; check the data where "
        "this happens at the first steps"
    )
