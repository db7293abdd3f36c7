"""Cutting runs short and comparing what they leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from internimage.training.loop import Trainer
from internimage.training.state import load_state


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, action: Any) -> None:
    """Call `action(trainer)` when step number `steps` is done."""
    original = Trainer._train_step

    def step(self: Trainer, micro_batches: Any) -> None:
        original(self, micro_batches)
        if self.step == steps:
            action(self)

    monkeypatch.setattr(Trainer, "_train_step", step)


def assert_same_state(first: Path, second: Path) -> None:
    a, b = load_state(first), load_state(second)
    for row in (*a["rows"], *b["rows"]):
        row.pop("images_per_second"), row.pop("seconds")
    assert a["rows"] == b["rows"]
    assert a["step"] == b["step"] and a["best_value"] == b["best_value"]
    for part in ("model", "ema"):
        assert a[part].keys() == b[part].keys()
        for key in a[part]:
            assert torch.equal(a[part][key], b[part][key]), f"{part}: {key}"
    for key, moments in a["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, b["optimizer"]["state"][key][name]), f"optimizer: {key} {name}"
    assert torch.equal(a["random"]["cpu"], b["random"]["cpu"])
