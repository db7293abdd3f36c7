from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from internimage.data import open_dataset
from tests.cli.conftest import Run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        path = tmp_path / "animals" / "train" / ("cat", "dog", "owl")[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(path)
    return tmp_path / "animals"


def test_writes_shards(run: Run, folder: Path, tmp_path: Path) -> None:
    result = run("shard", folder, tmp_path / "out", "--seed", 1)
    assert result.exit_code == 0 and "6 images in 1 shards" in result.stdout
    assert open_dataset(tmp_path / "out", "train").class_names == ("cat", "dog", "owl")
    again = run("shard", folder, tmp_path / "out", "--seed", 1, "--json")
    index = json.loads(again.stdout)
    assert index["classes"] == ["cat", "dog", "owl"] and index["parts"]["train"][0]["images"] == 6
    other = run("shard", folder, tmp_path / "out", "--seed", 2)
    assert other.exit_code == 1 and "other settings" in " ".join(other.stderr.split())


def test_left_out_images_are_listed(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "cat" / "0.png").write_bytes(b"")
    result = run("shard", folder, tmp_path / "out")
    assert result.exit_code == 0 and "0.png: the file is empty" in " ".join(result.stderr.split())
    refused = run("shard", folder, tmp_path / "none", "--max-unreadable", 0)
    assert refused.exit_code == 1 and "more than 0 images cannot be read" in " ".join(refused.stderr.split())


def test_evaluates_a_classifier_on_shards(run: Run, folder: Path, pets: Path, tmp_path: Path) -> None:
    run("shard", folder, tmp_path / "out")
    metrics = []
    for data in (folder, tmp_path / "out"):
        result = run("evaluate", pets, data, "--split", "train", "--json")
        assert result.exit_code == 0
        metrics.append({key: value for key, value in json.loads(result.stdout).items() if key != "data"})
    assert metrics[0] == metrics[1]


def test_wrong_usage(run: Run, tmp_path: Path) -> None:
    assert run("shard", tmp_path / "missing", tmp_path / "out").exit_code == 2
    assert run("shard", tmp_path, tmp_path / "out").exit_code == 1
    assert not (tmp_path / "out").exists()
