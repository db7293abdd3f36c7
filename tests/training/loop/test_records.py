"""What a run writes down besides its rows: trackers, log, environment."""

from __future__ import annotations

import importlib.machinery
import json
import logging
import os
import signal
import sys
import types
from pathlib import Path

import pytest

from internimage.errors import MissingExtra
from internimage.recipe import RunSettings
from internimage.training import TrainingResult, train
from internimage.training.records.environment import README
from internimage.training.records.log_file import run_log
from internimage.training.records.trackers import Trackers, tracker_names
from tests.training.conftest import TINY
from tests.training.runs import stop_after

STEPS = ("run.track_every=2", "schedule.epochs=2")


def run(data: Path, out: Path, *overrides: str) -> TrainingResult:
    return train("internimage_pico_fashion", data=data, out=out, overrides=(*TINY, *STEPS, *overrides))


class Service(types.ModuleType):
    """Stands for the package `trackio`: keeps what it is given."""

    def __init__(self) -> None:
        super().__init__("trackio")
        self.__spec__ = importlib.machinery.ModuleSpec("trackio", None)
        self.started: list[dict[str, object]] = []
        self.config: dict[str, object] = {}
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(self, **given: object) -> Service:
        self.started.append(given)
        self.config = types.SimpleNamespace(update=self._configure)  # type: ignore[assignment]  # a module's attribute
        return self

    def _configure(self, values: dict[str, object], *, allow_val_change: bool) -> None:
        self.settings = values

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    pytest.importorskip("accelerate")
    found = Service()
    monkeypatch.setitem(sys.modules, "trackio", found)
    return found


def test_trackers_get_steps_and_validations(service: Service, tiny_fashion: Path, tmp_path: Path) -> None:
    result = run(tiny_fashion, tmp_path, "run.trackers=trackio", "optimizer.layer_decay=0.5")
    assert [step for step, _ in service.logged] == [2, 3, 4, 6, 6] and service.finished == 1
    assert service.settings["schedule.epochs"] == 2
    row, (_, shown) = result.history[-1], service.logged[-1]
    assert {name: shown[name] for name in row if name != "step"} == {n: v for n, v in row.items() if n != "step"}
    (_, first), (_, last) = service.logged[0], service.logged[3]
    assert first["epoch"] == 1 and last["epoch"] == 2
    terms = [name for name in first if name.startswith("steps/loss/")]
    assert first["steps/train_loss"] == pytest.approx(sum(first[name] for name in terms)) and terms
    assert first["steps/gradient_norm"] > 0 and first["steps/images_per_second"] > 0
    rates = [value for name, value in last.items() if name.startswith("steps/lr/x")]
    assert len(rates) > 2 and max(rates) == pytest.approx(row["lr"])
    assert 0 < last["memory/resident"] <= last["memory/peak_resident"] < 100
    # Of the three steps of an epoch, one was seen at step 4 and two at step 6.
    assert last["steps/train_loss"] == pytest.approx(
        (3 * row["train_loss"] - service.logged[2][1]["steps/train_loss"]) / 2
    )


def test_a_run_goes_on_in_its_trackers(
    service: Service, tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 3, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        run(tiny_fashion, tmp_path, "run.trackers=trackio")
    train(out=tmp_path, resume=True)
    first, second = service.started
    assert first == second and str(first["name"]).startswith(f"{tmp_path.name}-")
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"trackio": first["name"]}
    train(out=tmp_path, resume=True, overrides=("run.trackers=", "schedule.epochs=3"))
    assert len(service.started) == 2


def test_wandb_works_offline(tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    pytest.importorskip("accelerate")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run(tiny_fashion, tmp_path, "run.trackers=wandb")
    (found,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert found.stat().st_size > 0


def test_a_tracker_without_its_package(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    with pytest.raises(MissingExtra, match=r"pip install 'internimage\[no_such_tracker\]'"):
        Trackers(["no_such_tracker"], tmp_path, {})
    with pytest.raises(ValueError, match="wandb"):
        train("internimage_pico_fashion", data=tmp_path, out=tmp_path, overrides=("run.trackers=visdom",))
    assert tracker_names(RunSettings(trackers=("wandb", "tensorboard"))) == ["tensorboard", "wandb"]
    assert tracker_names(RunSettings(tensorboard=False)) == []


def test_a_stranger_understands_the_folder(
    tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 2, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        run(tiny_fashion, tmp_path)
    train(out=tmp_path, resume=True)
    starts = json.loads((tmp_path / "environment.json").read_text())
    assert [start["step"] for start in starts] == [0, 2]
    assert starts[0]["processes"] == 1 and starts[0]["device"] == "cpu" and starts[0]["packages"]["torch"]
    written = (tmp_path / "log.txt").read_text()
    assert written.count("a step has 16 images") == 2 and "epoch 2: " in written
    assert "epoch 2: " not in caplog.text  # the program has not asked for it
    named = {line.split()[0] for line in README.splitlines()[2:]}
    others = {"curves.png", "states"}  # without matplotlib, of one process
    assert {path.name for path in tmp_path.iterdir()} - {"README.txt"} == named - others


def test_the_log_says_what_ended_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training, rest = logging.getLogger("internimage.training.loop"), logging.getLogger("internimage.data")
    before = logging.getLogger("internimage.training")
    state = before.level, before.propagate, list(before.handlers)
    with pytest.raises(ValueError, match="no more"), run_log(tmp_path, progress=False, is_first=True):
        training.info("said")
        assert not list(tmp_path.iterdir()), "a run that is refused writes nothing"
        (tmp_path / "recipe.json").write_text("{}")
        training.warning("warned once")
        rest.warning("broken image")
        raise ValueError("no more")
    assert (before.level, before.propagate, list(before.handlers)) == state
    lines = [line.split(" ", 2)[2] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert lines == ["INFO said", "WARNING warned once", "WARNING broken image", "ERROR ValueError: no more"]
    assert [record.message for record in caplog.records] == ["warned once", "broken image"]
    with run_log(tmp_path / "other", progress=False, is_first=False):
        training.warning("not mine")
    assert not (tmp_path / "other").exists()
