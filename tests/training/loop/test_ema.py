from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from internimage.recipe import EmaSettings
from internimage.training.ema import build_ema, decay_at
from tests.training.conftest import PARITY


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.fc = nn.Linear(3, 2)
        self.bn = nn.BatchNorm1d(2)


def put(model: Toy, recorded: dict[str, np.ndarray], step: int) -> None:
    state = {key: torch.from_numpy(np.asarray(recorded[f"ema.model.{key}"][step])) for key in model.state_dict()}
    model.load_state_dict(state)


@pytest.mark.parametrize(
    ("variant", "settings"),
    [("timm_0.9", EmaSettings(0.9)), ("timm_0.9999", EmaSettings()), ("deepspeed_f32", EmaSettings(warmup=True))],
)
def test_averages_equal_the_original(recorded: Any, variant: str, settings: EmaSettings) -> None:
    model = Toy()
    put(model, recorded, 0)
    ema = build_ema(model, settings)
    for step in range(1, 13):
        put(model, recorded, step)
        ema.update_parameters(model)
        for name, value in ema.module.named_parameters():
            key = f"ema.{variant}.{name if variant.startswith('timm') else name.replace('.', '')}"
            if key in recorded:
                torch.testing.assert_close(value, torch.from_numpy(recorded[key][step - 1]), rtol=1e-6, atol=1e-7)
        if variant.startswith("timm"):
            expected = torch.from_numpy(recorded[f"ema.{variant}.bn.running_var"][step - 1])
            torch.testing.assert_close(ema.module.bn.running_var, expected, rtol=1e-6, atol=1e-7)
    assert int(ema.module.bn.num_batches_tracked) == 12


def test_following_average_of_detectors_equals_the_original() -> None:
    with np.load(PARITY / "dense_ema.npz") as arrays:
        recorded = dict(arrays)
    model, settings = Toy(), EmaSettings(decay=0.9999, follow_steps=2000)
    states = {f"ema.model.{key}": recorded[f"model.{key}"] for key in model.state_dict()}
    put(model, states, 0)
    ema = build_ema(model, settings)
    momenta = recorded["mmdet_cfg.momentum"]
    for update in range(1, len(momenta) + 1):
        assert 1 - decay_at(update, settings) == pytest.approx(momenta[update - 1], rel=1e-12)
        put(model, states, update)
        ema.update_parameters(model)
        for name, value in ema.module.state_dict().items():
            expected = torch.from_numpy(np.asarray(recorded[f"mmdet_cfg.ema_{name.replace('.', '_')}"][update - 1]))
            if value.is_floating_point():
                torch.testing.assert_close(value, expected, rtol=2e-6, atol=1e-6)


def test_warmup_follows_quickly_at_first() -> None:
    settings = EmaSettings(decay=0.9, warmup=True)
    assert decay_at(1, settings) == pytest.approx(2 / 11)
    assert decay_at(10_000, settings) == 0.9
    assert decay_at(1, EmaSettings(decay=0.9)) == 0.9


def test_the_average_takes_no_gradient_and_is_in_evaluation_mode() -> None:
    ema = build_ema(Toy(), EmaSettings())
    assert not ema.training and not ema.module.bn.training
    assert not any(parameter.requires_grad for parameter in ema.parameters())
