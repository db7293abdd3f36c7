"""Runs on shards are runs on the files that the shards were made of."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from internimage import parallel
from internimage.classification.training.batches import train_batches
from internimage.data import ImageDataset, Sample, open_dataset
from internimage.data.readers.shards.write import ShardSettings, write_shards
from internimage.training import recipe, train
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


def test_any_number_of_processes_sees_each_image_once(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One, two and four processes read the same images in the same steps, from any step of an epoch on."""
    pytest.importorskip("timm")
    train_set = open_dataset(shards, "train")
    read: dict[int, list[list[int]]] = {}
    for world in (1, 2, 4):
        overrides = (*TINY, *CROPS, "data.workers=0", f"data.batch_size={16 // world}")
        chosen = recipe("internimage_pico_fashion").with_overrides(overrides)
        monkeypatch.setattr(parallel, "world", lambda world=world: world)
        steps: list[list[int]] = [[], [], []]  # those behind the first of four
        for rank in range(world):
            monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
            noted = Noting(train_set)
            list(train_batches(noted, chosen, chosen.model.config.preprocess).epoch(1, start=1))
            size = 16 // world
            parts = [noted.read[i : i + size] for i in range(0, len(noted.read), size)]
            steps = [step + part for step, part in zip(steps, parts, strict=True)]
        read[world] = [sorted(step) for step in steps]
    assert read[1] == read[2] == read[4]
    seen = [index for step in read[1] for index in step]
    assert len(seen) == len(set(seen)) == 48


class Noting:
    """Notes which images are read."""

    def __init__(self, dataset: ImageDataset[int]) -> None:
        self.dataset, self.class_names = dataset, dataset.class_names
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample[int]:
        self.read.append(index)
        return self.dataset[index]
