"""Losses against the recorded values and gradients of the original."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from internimage.ops.losses import focal_loss, giou_loss, smooth_l1_loss

FOLDER = Path(__file__).parents[1] / "parity" / "data" / "training"


def giou(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return giou_loss(pred, target) * weight.mean(dim=-1)


def smooth(beta: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda pred, target, weight: smooth_l1_loss(pred, target, beta=beta) * weight


LOSSES: dict[str, tuple[Callable[..., Tensor], float]] = {
    "focal": (lambda pred, label, weight: focal_loss(pred, label) * weight[:, None], 1.0),
    "giou10": (giou, 10.0),
    "giou2": (giou, 2.0),
    "l1": (smooth(0.0), 5.0),
    "smooth_l1_rpn": (smooth(1 / 9), 1.0),
    "smooth_l1_crowd": (smooth(1.0), 1.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients(name: str) -> None:
    stored = np.load(FOLDER / "losses_detection.npz")
    record = json.loads((FOLDER / "losses_detection.json").read_text())[name]
    inputs = [torch.from_numpy(stored[f"{name}.in.{argument}"]) for argument in record["inputs"]]
    loss, weight = LOSSES[name]
    prediction = inputs[0].requires_grad_()
    value = weight * loss(prediction, *inputs[1:]).sum() / record["options"]["avg_factor"]
    value.backward()
    torch.testing.assert_close(value.detach(), torch.from_numpy(stored[f"{name}.value"]), rtol=1e-5, atol=1e-6)
    assert prediction.grad is not None
    torch.testing.assert_close(prediction.grad, torch.from_numpy(stored[f"{name}.grad"]), rtol=1e-4, atol=1e-6)


def test_mean_of_the_focal_loss() -> None:
    stored = np.load(FOLDER / "losses_detection.npz")
    prediction, label = (torch.from_numpy(stored[f"focal_mean.in.{name}"]) for name in ("pred", "label"))
    torch.testing.assert_close(focal_loss(prediction, label).mean(), torch.from_numpy(stored["focal_mean.value"]))
