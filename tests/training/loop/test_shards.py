"""Runs on shards are runs on the files that the shards were made of."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from internimage.data.readers.shards.write import ShardSettings, write_shards
from internimage.training import train
from internimage.training.state import load_state
from tests.training.conftest import TINY
from tests.training.runs import assert_same_state, stop_after

CROPS = ("augment.kind=crop", "augment.rand_augment=", "data.batch_size=8", "data.workers=2")


def run(data: Path, out: Path, *overrides: str, resume: bool = False) -> None:
    chosen = (*TINY, "schedule.epochs=2", *overrides)
    train("internimage_pico_fashion", data=data, out=out, overrides=() if resume else chosen, resume=resume)


@pytest.fixture(scope="module")
def shards(tiny_fashion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 72 training images of `tiny_fashion` in several shards, and the 24 test images."""
    out = tmp_path_factory.mktemp("shards") / "fashion"
    index = write_shards(tiny_fashion, out, ShardSettings(max_bytes=30_000))
    assert len(index.parts["train"]) > 3
    return out


def test_the_bundled_recipe_trains_from_shards(tiny_fashion: Path, shards: Path, tmp_path: Path) -> None:
    run(tiny_fashion, tmp_path / "files")
    run(shards, tmp_path / "shards")
    assert_same_state(tmp_path / "files", tmp_path / "shards")


def test_a_run_goes_on_within_an_epoch(
    tiny_fashion: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    run(tiny_fashion, tmp_path / "whole", *CROPS)
    with monkeypatch.context() as patch:
        stop_after(patch, 3, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        run(shards, tmp_path / "cut", *CROPS)
    assert load_state(tmp_path / "cut")["step"] == 3
    run(shards, tmp_path / "cut", resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "cut")


def test_a_run_does_not_go_on_with_other_shards(tiny_fashion: Path, shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run")
    write_shards(tiny_fashion, tmp_path / "shuffled", ShardSettings(seed=1))
    with pytest.raises(ValueError, match="training part"):
        train(data=tmp_path / "shuffled", out=tmp_path / "run", resume=True)
