from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from internimage.training import TrainingResult, train
from internimage.training.loop import Trainer
from internimage.training.state import load_state
from tests.training.conftest import TINY
from tests.training.runs import assert_same_state, stop_after

RECIPE = "internimage_pico_fashion"
BEFORE = signal.getsignal(signal.SIGINT)  # a shell may have set it to be ignored


def run(data: Path, out: Path, *overrides: str, resume: bool = False) -> TrainingResult:
    return train(RECIPE, data=data, out=out, resume=resume, overrides=(*TINY, *overrides), progress=False)


@pytest.fixture(scope="module")
def whole_run(tiny_fashion: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    """An uninterrupted run with dropout, two batches a step and everything random switched on."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("run") / "whole"
    return out, run(tiny_fashion, out, "data.batch_size=8", "optimizer.accumulation_steps=2")


def test_a_run_leaves_its_files(whole_run: tuple[Path, TrainingResult]) -> None:
    out, result = whole_run
    assert not result.interrupted and result.best is not None and result.last is not None
    assert sorted(path.name for path in out.iterdir()) == [
        "README.txt",
        "best.safetensors",
        "data.json.gz",
        "environment.json",
        "last.safetensors",
        "log.txt",
        "metrics.csv",
        "recipe.json",
        "state.pt",
    ]
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"] and rows[-1]["step"] == "9"
    assert json.loads((out / "recipe.json").read_text())["schedule"]["epochs"] == 3
    assert json.loads(json.dumps(result.to_dict()))["best_value"] == max(row["val_top1"] for row in result.history)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_resumed_run_equals_the_uninterrupted_one(
    whole_run: tuple[Path, TrainingResult],
    tiny_fashion: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
) -> None:
    """Interrupted by Ctrl-C after a step in the middle of an epoch (1, 5) or at its end (3)."""
    with monkeypatch.context() as patch:
        stop_after(patch, steps, lambda trainer: os.kill(os.getpid(), signal.SIGINT))
        first = run(tiny_fashion, tmp_path, "data.batch_size=8", "optimizer.accumulation_steps=2")
    assert first.interrupted and load_state(tmp_path)["step"] == steps
    torch.rand(7)  # the state of the process must not matter
    rest = run(tiny_fashion, tmp_path, "data.batch_size=8", "optimizer.accumulation_steps=2", resume=True)
    assert not rest.interrupted
    assert_same_state(whole_run[0], tmp_path)


def test_resumed_run_with_crops_and_mixing(tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    overrides = ("augment.kind=crop", "augment.rand_augment=rand-m9", "augment.mixup=0.8", "augment.cutmix=1")
    overrides += ("schedule.epochs=2", "data.batch_size=8", "data.workers=0", "model.activation_checkpointing=true")
    run(tiny_fashion, tmp_path / "whole", *overrides)
    with monkeypatch.context() as patch:
        stop_after(patch, 3, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        run(tiny_fashion, tmp_path / "cut", *overrides)
    assert load_state(tmp_path / "cut")["step"] == 3
    run(tiny_fashion, tmp_path / "cut", *overrides, resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "cut")


def test_a_crash_loses_only_what_came_after_the_last_state(
    tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(Exception):
        pass

    def crash(trainer: Trainer) -> None:
        raise Crash

    run(tiny_fashion, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 4, crash)
        with pytest.raises(Crash):
            run(tiny_fashion, tmp_path / "cut")
    assert load_state(tmp_path / "cut")["step"] == 3
    run(tiny_fashion, tmp_path / "cut", resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "cut")


def test_the_signal_handlers_are_given_back(whole_run: tuple[Path, TrainingResult]) -> None:
    assert signal.getsignal(signal.SIGINT) is BEFORE


def test_an_existing_run_is_not_overwritten(whole_run: tuple[Path, TrainingResult], tiny_fashion: Path) -> None:
    with pytest.raises(FileExistsError, match="holds a run already"):
        run(tiny_fashion, whole_run[0])


def test_resume_refuses_other_settings(whole_run: tuple[Path, TrainingResult], tiny_fashion: Path) -> None:
    with pytest.raises(ValueError, match=r"run.seed: started with 0, given 5") as caught:
        run(tiny_fashion, whole_run[0], "run.seed=5", "data.workers=3", "optimizer.accumulation_steps=1", resume=True)
    assert "data.workers" not in str(caught.value)
    assert "optimizer.accumulation_steps: started with 2, given 1" in str(caught.value)
    with pytest.raises(ValueError, match=r"started with 3, given 2"):
        run(tiny_fashion, whole_run[0], "schedule.epochs=2", resume=True)
    with pytest.raises(ValueError, match=r"goes by the recipe internimage_pico_fashion, given internimage_t_1k_224"):
        train("internimage_t_1k_224", out=whole_run[0], resume=True)


def test_resume_needs_a_sound_state(tiny_fashion: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        run(tiny_fashion, tmp_path, resume=True)
    (tmp_path / "state.pt").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="damaged"):
        run(tiny_fashion, tmp_path, resume=True)
    torch.save({"step": 1}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="no training state"):
        run(tiny_fashion, tmp_path, resume=True)


def test_a_diverged_run_stops(tiny_fashion: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        run(tiny_fashion, tmp_path, "optimizer.lr_per_512=1e30", "schedule.epochs=30", "optimizer.clip_norm=0")


def test_plot_and_tensorboard(tiny_fashion: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("tensorboard")
    pytest.importorskip("accelerate")
    overrides = ("run.plot=true", "run.tensorboard=true", "schedule.epochs=2", "ema.decay=0", "run.precision=bf16")
    run(tiny_fashion, tmp_path, *overrides)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert any((tmp_path / "tensorboard").iterdir())


def test_fp16_scales_the_loss_and_goes_on(tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ("run.precision=fp16", "schedule.epochs=2")
    run(tiny_fashion, tmp_path / "whole", *overrides)
    with monkeypatch.context() as patch:
        stop_after(patch, 2, lambda trainer: os.kill(os.getpid(), signal.SIGINT))
        run(tiny_fashion, tmp_path / "cut", *overrides)
    assert load_state(tmp_path / "cut").get("scaler", {})["scale"] > 1
    run(tiny_fashion, tmp_path / "cut", *overrides, resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "cut")


def test_frozen_stages_do_not_move(tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before: dict[str, torch.Tensor] = {}
    original = Trainer.run

    def remember(self: Trainer) -> TrainingResult:
        before.update({key: value.clone() for key, value in self.model.state_dict().items()})
        return original(self)

    monkeypatch.setattr(Trainer, "run", remember)
    run(tiny_fashion, tmp_path, "model.frozen_stages=2", "schedule.epochs=2")
    after = load_state(tmp_path)["model"]
    frozen = ("backbone.patch_embed", "backbone.levels.0.", "backbone.levels.1.")
    moved = {key for key in after if not torch.equal(after[key], before[key])}
    assert moved and not any(key.startswith(frozen) for key in moved)
