"""Parameter groups: who decays, and how fast each part of a network learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def has_weight_decay(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter decays: everything but vectors and biases."""
    return parameter.ndim > 1 and not name.endswith(".bias")


def grouped(model: nn.Module, setting: Callable[[str, nn.Parameter], tuple[float, float]]) -> list[dict[str, Any]]:
    """Return one optimizer group for each pair of (rate multiplier, weight decay) that occurs.

    Frozen parameters are left out.

    Args:
        model: what is trained.
        setting: maps the name of a parameter and the parameter to its rate multiplier and weight decay.

    Returns:
        Groups with "params", "names", "lr_multiplier" and "weight_decay", in the order of first appearance.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        multiplier, decay = setting(name, parameter)
        group = groups.setdefault(
            (round(multiplier, 12), decay),
            {"params": [], "names": [], "lr_multiplier": multiplier, "weight_decay": decay},
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())
