"""Whole runs of several processes: what they leave behind, cuts, other numbers of processes, and what may go wrong."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from internimage.checkpoints.run_folder import saved_states
from internimage.training.state import load_state
from tests.training.conftest import TINY
from tests.training.parallel.processes import finished, kill_all, start_training, wait_until
from tests.training.runs import assert_same_state

pytestmark = pytest.mark.distributed
SETTINGS = (*TINY, "data.batch_size=4", "model.weights=none", "model.start=recipe", "optimizer.name=sgd")


def words(data: Path, *overrides: str) -> list[str]:
    return ["internimage_pico_fashion", "--data", str(data), *(f"--set={text}" for text in (*SETTINGS, *overrides))]


@pytest.fixture(scope="module")
def whole(tiny_fashion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parallel") / "whole"
    text = finished(start_training(out, *words(tiny_fashion)))
    assert "a step has 8 images (4 images x 2 processes)" in text and text.count("best weights") == 1
    return out


def worker_of(process: subprocess.Popen[str], rank: int) -> int:
    """Return the process number of one of the processes of a launcher."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    environments = {int(pid): Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in children}
    return next(pid for pid, found in environments.items() if f"RANK={rank}".encode() in found)


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))


def test_a_run_of_two_processes_is_that_of_one(whole: Path, tiny_fashion: Path, tmp_path: Path) -> None:
    """To the last figure of its metrics: the last batch of validation is not repeated, every image counts once."""
    finished(start_training(tmp_path, *words(tiny_fashion, "data.batch_size=8"), processes=1))
    names = {path.name for path in tmp_path.iterdir()}
    assert {path.name for path in whole.iterdir()} == names - {"state.pt"} | {"states"}
    own, expected = load_state(whole), load_state(tmp_path)
    torch.testing.assert_close(own["model"], expected["model"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(own["ema"], expected["ema"], rtol=1e-5, atol=1e-5)
    for row, other in zip(rows(whole), rows(tmp_path), strict=True):
        for key in ("step", "lr", "val_top1", "val_top5"):
            assert row[key] == other[key]
        assert float(row["val_loss"]) == pytest.approx(float(other["val_loss"]), rel=1e-4)
        assert float(row["train_loss"]) == pytest.approx(float(other["train_loss"]), rel=1e-4)


def test_sigterm_saves_and_the_run_goes_on_bit_for_bit(whole: Path, tiny_fashion: Path, tmp_path: Path) -> None:
    process = start_training(tmp_path, *words(tiny_fashion))
    wait_until((tmp_path / "metrics.csv").exists, process)
    process.send_signal(signal.SIGTERM)
    text = finished(process, 128 + signal.SIGTERM)
    assert text.count("interrupted and saved") <= 1  # what is left of the output depends on the launcher
    assert 7 <= load_state(tmp_path)["step"] < 21
    finished(start_training(tmp_path, "--resume"))
    assert_same_state(whole, tmp_path)


@pytest.mark.slow
def test_kills_lose_nothing(whole: Path, tiny_fashion: Path, tmp_path: Path) -> None:
    """Killed at random points, also while a state is written: after each step there is one."""
    rng = random.Random(0)
    for attempt in range(20):
        again = words(tiny_fashion, "run.save_minutes=0") if attempt == 0 else ["--resume"]
        process = start_training(tmp_path, *again)
        seen = load_state(tmp_path)["step"] if attempt else -1

        def moved(seen: int = seen) -> bool:
            return max(saved_states(tmp_path).values(), default=-1) > seen + 1

        if seen >= 18:
            break
        wait_until(moved, process)
        if rng.random() < 0.5:
            wait_until(lambda: any((tmp_path / "states").glob("*/.*")), process)
        kill_all(process)
        process.communicate()
    finished(process if process.poll() is None else start_training(tmp_path, "--resume"))
    assert_same_state(whole, tmp_path)


@pytest.mark.slow
def test_shards_go_on_with_whole_models(whole: Path, tiny_fashion: Path, tmp_path: Path) -> None:
    """Weights, average, moments and sums of a run in shards are those of any other."""
    process = start_training(tmp_path, *words(tiny_fashion, "parallel.strategy=fsdp", "parallel.offload=true"))
    wait_until((tmp_path / "metrics.csv").exists, process)
    process.send_signal(signal.SIGTERM)
    finished(process, 128 + signal.SIGTERM)
    state = load_state(tmp_path)
    assert state["model"].keys() == load_state(whole)["model"].keys() and 7 <= state["step"] < 21
    finished(start_training(tmp_path, "--resume", "--set=parallel.strategy=ddp", "--set=parallel.offload=false"))
    state, expected = load_state(tmp_path), load_state(whole)
    torch.testing.assert_close(state["model"], expected["model"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state["ema"], expected["ema"], rtol=1e-5, atol=1e-5)
    for index, moments in expected["optimizer"]["state"].items():  # some turn on the last bit: offsets start at a kink
        own = state["optimizer"]["state"][index]["momentum_buffer"] - moments["momentum_buffer"]
        assert own.abs().median() < 1e-6


@pytest.mark.parametrize("processes", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_another_number_of_processes_goes_on(whole: Path, tiny_fashion: Path, tmp_path: Path, processes: int) -> None:
    process = start_training(tmp_path, *words(tiny_fashion))
    wait_until((tmp_path / "metrics.csv").exists, process)
    process.send_signal(signal.SIGTERM)
    finished(process, 128 + signal.SIGTERM)
    step = load_state(tmp_path)["step"]
    text = finished(start_training(tmp_path, "--resume", processes=processes))
    assert f"{processes} processes go on instead of 2, with {8 // processes} images each" in text
    state, expected = load_state(tmp_path), load_state(whole)
    assert step < state["step"] == expected["step"]
    torch.testing.assert_close(state["model"], expected["model"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state["ema"], expected["ema"], rtol=1e-5, atol=1e-5)
    assert torch.equal(state["random"]["cpu"], expected["random"]["cpu"])
    if processes == 1:
        text = finished(start_training(tmp_path, "--resume", "--set=schedule.epochs=4", processes=3), 1)
        assert "8 images in a batch (1 x data.batch_size=8), which 3 processes cannot share evenly" in text


def test_a_killed_process_ends_the_others(tiny_fashion: Path, tmp_path: Path) -> None:
    process = start_training(tmp_path, *words(tiny_fashion, "schedule.epochs=200", "run.save_minutes=0"))
    wait_until((tmp_path / "metrics.csv").exists, process)
    os.kill(worker_of(process, 1), signal.SIGKILL)
    text = finished(process, None)
    assert "another process has ended or did not answer in time" in text and "process 0 of 2" in text
    assert load_state(tmp_path)["step"] >= 6  # the state follows the row


@pytest.mark.slow
def test_a_stuck_process_ends_the_others(tiny_fashion: Path, tmp_path: Path) -> None:
    overrides = ("schedule.epochs=200", "run.save_minutes=0", "parallel.timeout_minutes=0.5")
    process = start_training(tmp_path, *words(tiny_fashion, *overrides))
    wait_until((tmp_path / "metrics.csv").exists, process)
    os.kill(worker_of(process, 1), signal.SIGSTOP)
    text = finished(process, None)
    assert "another process has ended or did not answer in time" in text and "process 0 of 2" in text


def test_what_cannot_work_is_said_before_a_process_starts(tiny_fashion: Path, tmp_path: Path) -> None:
    text = finished(start_training(tmp_path / "run", *words(tiny_fashion, "parallel.offload=true")), 1)
    assert "parallel.offload=true goes with parallel.strategy=fsdp" in text and "process 0" not in text
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_diverged_run_ends_all_processes(tiny_fashion: Path, tmp_path: Path) -> None:
    overrides = ("optimizer.lr_per_512=1e30", "schedule.epochs=30", "optimizer.clip_norm=0")
    text = finished(start_training(tmp_path, *words(tiny_fashion, *overrides)), 1)
    assert "the loss is not finite (process" in text and "holds the state" not in text
    assert load_state(tmp_path)["step"] < 20
