"""States in shards: what damages or prevents one, and one file of weights out of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import internimage
from internimage.checkpoints.run_folder import saved_states, state_folders
from internimage.cli.app import app
from internimage.training.state import load_state
from tests.training.conftest import TINY
from tests.training.parallel.processes import finished, start_training, start_worker

pytestmark = pytest.mark.distributed
SETTINGS = (*TINY, "data.batch_size=4", "model.weights=none", "model.start=recipe", "schedule.epochs=2")


@pytest.fixture(scope="module")
def two_states(tiny_fashion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that keeps its last two states."""
    out = tmp_path_factory.mktemp("states") / "run"
    settings = (*SETTINGS, "run.keep_states=2")
    words = ["internimage_pico_fashion", "--data", tiny_fashion, *(f"--set={text}" for text in settings)]
    finished(start_training(out, *words))
    return out


def test_each_process_writes_a_part_of_every_kept_state(two_states: Path) -> None:
    assert not (two_states / "state.pt").exists()
    assert sorted(path.name for path in (two_states / "states").iterdir()) == ["step-00000007", "step-00000014"]
    for folder in state_folders(two_states):
        state, first, second = sorted(folder.iterdir(), key=lambda path: path.name != "state.pt")
        assert state.stat().st_size < 300_000
        assert 0.8 < first.stat().st_size / second.stat().st_size < 1.25


def test_one_file_of_averaged_or_raw_weights(two_states: Path, tmp_path: Path) -> None:
    state = load_state(two_states)
    folder = next(iter(saved_states(two_states))).parent
    for source, option, held in (
        (two_states, "--ema", "ema"),
        (two_states, "--raw", "model"),
        (folder, "--raw", "model"),
    ):
        out = tmp_path / f"{source.name}{option}.safetensors"
        found = CliRunner().invoke(app, ["convert", str(source), str(out), option])
        assert found.exit_code == 0, found.output
        model = internimage.load(out)
        prefix = "module." if held == "ema" else ""
        for key, value in model.state_dict().items():
            assert torch.equal(value, state[held][prefix + key]), key
        assert model.config == internimage.load(two_states / "last.safetensors").config


def test_a_damaged_shard_is_named_and_the_state_before_counts(two_states: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(two_states, out)
    shard = sorted((out / "states" / "step-00000014").glob("shard-00001-*"))[0]
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    assert load_state(out)["step"] == 7
    text = finished(start_training(out, "--resume"))
    assert f"{shard} is damaged" in text and "goes on from the state before" in text
    assert load_state(out)["step"] == 14
    trained, expected = load_state(out)["model"], load_state(two_states)["model"]
    assert all(torch.equal(value, expected[key]) for key, value in trained.items())


def test_a_full_disk_of_one_process_stops_all_and_the_last_state_stays(two_states: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(two_states, out)
    before = sorted(path.name for path in out.rglob("*"))
    text = finished(start_worker(2, "resume_on_full_disk", out), None)
    assert text.count("process 1 of 2: cannot write") >= 2, text  # both processes say it
    assert load_state(out)["step"] == 14
    assert not [name for name in (path.name for path in (out / "states").rglob("*")) if name not in before]
