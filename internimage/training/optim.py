"""The optimizer of a run: groups of parameters by the rules of its recipe, and their rates at each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import nn
from torch.optim import Optimizer

from internimage.recipe import OptimizerSettings
from internimage.recipe.layer_rules import LayerRules
from internimage.recipe.schedules import Schedule


class ParamGroup(TypedDict):
    """Parameters that learn at one rate and decay alike."""

    params: list[nn.Parameter]
    names: list[str]
    lr_multiplier: float
    weight_decay: float


def param_groups(model: nn.Module, rules: LayerRules, *, depths: Sequence[int]) -> list[ParamGroup]:
    """Return one optimizer group for each pair of (rate multiplier, weight decay) that occurs.

    Frozen parameters are left out.

    Args:
        model: what is trained.
        rules: how fast each part learns, and what decays.
        depths: blocks of each level of its backbone.

    Returns:
        Groups in the order of first appearance.
    """
    groups: dict[tuple[float, float], ParamGroup] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        multiplier, decay = rules.lr_multiplier(name, depths), rules.decay(name, parameter)
        group = groups.setdefault(
            (round(multiplier, 12), decay),
            {"params": [], "names": [], "lr_multiplier": multiplier, "weight_decay": decay},
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(groups: Sequence[ParamGroup], settings: OptimizerSettings) -> Optimizer:
    """Return AdamW, or SGD with Nesterov momentum, over parameter groups; the schedule sets the rates."""
    plain = [dict(group) for group in groups]
    if settings.name == "adamw":
        return torch.optim.AdamW(plain, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)
    return torch.optim.SGD(plain, lr=0.0, momentum=settings.momentum, nesterov=True)


def set_rates(optimizer: Optimizer, schedule: Schedule, step: int) -> None:
    """Set the rate of every parameter group for a step."""
    for group in optimizer.param_groups:
        group["lr"] = schedule.lr(step, group["lr_multiplier"])
