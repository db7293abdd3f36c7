"""A compiled backbone: the same losses, runs that go on, and where it is refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from internimage.training import TrainingResult, train
from internimage.training.device import compile_backbone
from internimage.training.recipes import recipe
from tests.training.conftest import TINY
from tests.training.runs import assert_same_state, stop_after

RECIPE = "internimage_pico_fashion"
# One block a level: inductor takes a minute of a processor for them.
SMALL = (*TINY, "data.batch_size=8", "model.weights=none", "model.start=recipe", "model.drop_path_rate=0.3")
SMALL = (*SMALL, "optimizer.name=sgd", "model.config.backbone.depths=1,1,1,1", "schedule.epochs=2")


def run(data: Path, out: Path, how: str) -> TrainingResult:
    return train(RECIPE, data=data, out=out, overrides=(*SMALL, f"run.compile={how}"), device="cpu", progress=False)


@pytest.mark.slow
def test_a_compiled_run_has_the_losses_of_a_plain_one_and_goes_on(
    tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drop path included: random numbers are drawn as without."""
    plain, compiled = run(tiny_fashion, tmp_path / "plain", "false"), run(tiny_fashion, tmp_path / "compiled", "true")
    for row, other in zip(plain.history, compiled.history, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
        assert row["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)
    with monkeypatch.context() as patch:
        stop_after(patch, 4, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        assert run(tiny_fashion, tmp_path / "cut", "true").interrupted
    train(out=tmp_path / "cut", resume=True, device="cpu", progress=False)
    assert_same_state(tmp_path / "compiled", tmp_path / "cut")


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = recipe(RECIPE).with_overrides(["run.compile=true"])
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"run\.compile=true needs a C\+\+ compiler, and there is no no-such-compiler"):
        compile_backbone(torch.nn.Module(), chosen, torch.device("cpu"))
    compile_backbone(torch.nn.Module(), recipe(RECIPE), torch.device("cpu"))  # off by default
