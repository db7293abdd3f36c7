"""What goes wrong around a run: numbers that are not finite, full disks, two processes, killed writes."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from internimage.checkpoints.run_folder import saved_states
from internimage.files import locked
from internimage.hub.load import load
from internimage.recipe import RunSettings
from internimage.training import TrainingResult, train
from internimage.training.loop import Trainer
from internimage.training.records import Records
from internimage.training.state import LOCK_FILE, load_state
from tests.full_disk import largest_file
from tests.training.conftest import TINY
from tests.training.runs import assert_same_state, stop_after

RECIPE = "internimage_pico_fashion"


def run(data: Path, out: Path, *overrides: str) -> TrainingResult:
    return train(RECIPE, data=data, out=out, overrides=(*TINY, *overrides), progress=False)


def resume(out: Path, *overrides: str) -> TrainingResult:
    return train(out=out, resume=True, overrides=overrides, progress=False)


@pytest.fixture(scope="module")
def whole(tiny_fashion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reliability") / "whole"
    torch.set_num_threads(1)
    run(tiny_fashion, out)
    return out


def spoil(trainer: Trainer, part: str) -> None:
    """Put a NaN into a part of the state of a run, after its last step."""
    parameter = next(iter(trainer.model.parameters()))
    if part == "model":
        parameter.data.view(-1)[0] = math.nan
    elif part == "moments":
        trainer.optimizer.state[parameter]["exp_avg_sq"].view(-1)[0] = math.inf
    else:
        assert trainer.ema is not None
        next(iter(trainer.ema.parameters())).view(-1)[0] = math.nan


@pytest.mark.parametrize("is_stopped", [False, True], ids=["saved", "stopped"])
@pytest.mark.parametrize(
    ("part", "name"), [("model", "model "), ("moments", "optimizer 0 exp_avg_sq"), ("average", "average ")]
)
def test_a_state_that_is_not_finite_replaces_none(
    tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, name: str, is_stopped: bool
) -> None:
    def action(trainer: Trainer) -> None:
        spoil(trainer, part)
        if is_stopped:
            os.kill(os.getpid(), signal.SIGTERM)

    stop_after(monkeypatch, 5, action)
    kept = 3 if is_stopped else 4
    expected = rf"not finite \({name}.*\) at step 5 of 9 .*keeps the state of step {kept}"
    with pytest.raises(FloatingPointError, match=expected):
        run(tiny_fashion, tmp_path, *(() if is_stopped else ("run.save_minutes=0",)))
    assert load_state(tmp_path)["step"] == kept


def test_what_was_saved_before_a_divergence_stays(
    whole: Path, tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 5, lambda trainer: spoil(trainer, "model"))
        with pytest.raises(FloatingPointError):
            run(tiny_fashion, tmp_path)
    assert load_state(tmp_path)["step"] == 3
    assert all(value.isfinite().all() for value in load(tmp_path / "last.safetensors").state_dict().values())
    resume(tmp_path)
    assert_same_state(whole, tmp_path)


def test_a_loss_that_is_not_finite_stops_at_its_step(
    tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from internimage.training.setup import Setup

    calls: list[int] = []
    original = Setup.loss

    def loss(self: Any, batch: Any, device: torch.device) -> dict[str, torch.Tensor]:
        calls.append(1)
        losses = original(self, batch, device)
        return {name: value * (math.nan if len(calls) == 2 else 1) for name, value in losses.items()}

    monkeypatch.setattr(Setup, "loss", loss)
    expected = r"the loss is not finite at step 2 of 9 \(learning rate .*, precision fp32\).*keeps the state of step 1"
    with pytest.raises(FloatingPointError, match=expected):
        run(tiny_fashion, tmp_path, "run.save_minutes=0")
    assert load_state(tmp_path)["step"] == 1


def test_the_best_is_not_the_first_that_could_not_be_measured(
    tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from internimage.training.setup import Setup

    values = iter((math.nan, 0.25, math.nan))
    monkeypatch.setattr(Setup, "validate", lambda *_: {"val_loss": 1.0, "val_top1": next(values)})
    result = run(tiny_fashion, tmp_path)
    assert result.best_value == 0.25 and result.to_dict()["history"][0]["val_top1"] is None
    assert load_state(tmp_path)["best_value"] == 0.25 and result.best is not None


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(
    whole: Path, tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (whole / "last.safetensors").stat().st_size < 6_000_000 < (whole / "state.pt").stat().st_size
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 8, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        run(tiny_fashion, out)
    for size, file in ((0, "metrics.csv"), (100_000, "last.safetensors"), (6_000_000, "state.pt")):
        with largest_file(size), pytest.raises(OSError, match=rf"^cannot write .*{file}[^\n]*$"):
            resume(out)
        assert load_state(out)["step"] == 8
        assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
    resume(out)
    assert_same_state(whole, out)


def test_one_process_in_a_folder(whole: Path, tiny_fashion: Path, tmp_path: Path) -> None:
    with locked(tmp_path / LOCK_FILE):
        for start in (lambda: run(tiny_fashion, tmp_path), lambda: resume(tmp_path)):
            with pytest.raises(BlockingIOError, match=rf"in use by process {os.getpid()} on .*wait until it has ended"):
                start()
    assert not list(tmp_path.iterdir())


def test_leftovers_of_killed_writes_are_removed(tiny_fashion: Path, tmp_path: Path) -> None:
    for name in (".state.pt.0123abcd.tmp", ".mine.0123abcd.tmp"):
        (tmp_path / name).touch()
    run(tiny_fashion, tmp_path, "schedule.epochs=2")
    hidden = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert hidden == [".mine.0123abcd.tmp"]


def test_a_disk_too_full_for_tensorboard_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip("accelerate")
    records = Records(tmp_path, RunSettings(plot=False, tensorboard=True))
    row = {"epoch": 1, "step": 1, "lr": 0.1, "train_loss": 1.0}
    records.add(row, {})
    size = max(path.stat().st_size for path in (tmp_path / "tensorboard").iterdir())
    assert (tmp_path / "metrics.csv").stat().st_size < size
    with largest_file(size), pytest.raises(OSError, match=r"^cannot write .*tensorboard: no space is left there"):
        records.add({**row, "step": 2}, {})
    with largest_file(size), pytest.raises(OSError, match=r"^cannot write .*tensorboard: no space is left there"):
        records.close()
    assert "Traceback" not in "".join(capsys.readouterr())


def test_a_damaged_state_is_passed_over_for_the_one_before(
    whole: Path, tiny_fashion: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 5, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        run(tiny_fashion, tmp_path, "run.keep_states=2")
    states = list(saved_states(tmp_path))
    assert [path.parent.name for path in states] == ["step-00000005", "step-00000003"]
    content = states[0].read_bytes()
    states[0].write_bytes(content[: len(content) // 2])
    resume(tmp_path, "run.keep_states=1")
    assert f"{states[0]} is damaged" in caplog.text and f"goes on from the state before, {states[1]}" in caplog.text
    assert_same_state(whole, tmp_path)
    assert (tmp_path / "state.pt").exists() and not (tmp_path / "states").exists()
