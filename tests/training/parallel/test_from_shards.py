"""From image files to a trained model, as on a cluster: shards, `accelerate launch`, two processes beside one."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from internimage.training.state import load_state
from tests.training.conftest import TINY, write_idx
from tests.training.parallel.processes import finished, start

pytestmark = pytest.mark.distributed
PLAIN = ("run.tensorboard=false", "run.plot=false", "run.precision=fp32", "model.weights=none", "model.start=recipe")


def write_shapes(root: Path, train: int, test: int) -> Path:
    """Write images in the files of Fashion-MNIST: ten shapes, moved, darkened, laid over another one, and noisy."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(10, 7, 7))
    shapes = np.kron(coarse, np.ones((1, 4, 4)))
    root.mkdir()
    for part, count in (("train", train), ("t10k", test)):
        labels = rng.permutation(np.arange(count) % 10)
        images = np.empty((count, 28, 28))
        for i, label in enumerate(labels):
            other = shapes[rng.integers(10)] * rng.uniform(0, 0.9)
            shape = np.roll(shapes[label] + other, rng.integers(-4, 5, 2), (0, 1))
            images[i] = 128 + 40 * rng.uniform(0.4, 1) * shape + 30 * rng.normal(size=(28, 28))
        write_idx(root / f"{part}-images-idx3-ubyte", images.clip(0, 255))
        write_idx(root / f"{part}-labels-idx1-ubyte", labels)
    return root


def shards_of(data: Path, out: Path) -> Path:
    finished(start("-m", "internimage", "shard", data, out))
    return out


def trained(out: Path, data: Path, *settings: str, processes: int) -> list[dict[str, str]]:
    """Return the rows of a run of the bundled classifier's recipe, started by accelerate's launcher."""
    # Without --multi_gpu, accelerate starts a single process on a machine that has no GPU.
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", 1, "--mixed_precision", "no")
    launcher += ("--dynamo_backend", "no", "--num_processes", processes)
    words = ("-m", "internimage", "train", "internimage_pico_fashion", "--data", data, "--out", out, "--device", "cpu")
    process = start(*(launcher if processes > 1 else ()), *words, *(f"--set={text}" for text in settings))
    text = finished(process, limit=1800)
    assert processes == 1 or f"x {processes} processes)" in text
    return list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))


def test_two_processes_learn_from_shards_what_one_learns_from_files(tiny_fashion: Path, tmp_path: Path) -> None:
    settings = (*TINY, *PLAIN, "schedule.epochs=1", "optimizer.name=sgd")
    shards = shards_of(tiny_fashion, tmp_path / "shards")
    both = trained(tmp_path / "two", shards, *settings, "data.batch_size=4", processes=2)
    one = trained(tmp_path / "one", tiny_fashion, *settings, "data.batch_size=8", processes=1)
    own, expected = load_state(tmp_path / "two"), load_state(tmp_path / "one")
    torch.testing.assert_close(own["model"], expected["model"], rtol=1e-5, atol=1e-5)
    assert [row["val_top1"] for row in both] == [row["val_top1"] for row in one]


@pytest.mark.slow
def test_two_processes_reach_the_accuracy_of_one(tmp_path: Path) -> None:
    """The recipe of the bundled classifier in small: 32 pixels, 6 epochs of 3,000 images."""
    data = write_shapes(tmp_path / "data", 3000, 2000)
    shards = shards_of(data, tmp_path / "shards")
    settings = (*PLAIN, "data.holdout=0", "data.size=32", "schedule.epochs=6")
    one = trained(tmp_path / "one", data, *settings, "data.batch_size=64", processes=1)
    both = trained(tmp_path / "two", shards, *settings, "data.val_split=test", "data.batch_size=32", processes=2)
    assert len(one) == len(both) == 6
    best, other = float(one[-1]["val_top1"]), float(both[-1]["val_top1"])
    assert best > 0.6 and abs(best - other) <= 0.003
