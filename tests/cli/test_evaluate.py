from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import Result

import internimage

Run = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        folder = tmp_path / "data" / "val" / name
        folder.mkdir(parents=True)
        for i in range(3):
            PIL.Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "data"


def test_measures_every_image(run: Run, pets: Path, data: Path, tmp_path: Path) -> None:
    report = json.loads(run("evaluate", pets, data, "--json", "--batch-size", 4).stdout)
    model = internimage.load(pets)
    files = sorted((data / "val").rglob("*.png"))
    right = sum(answer.name == file.parent.name for answer, file in zip(model.predict(files), files, strict=True))
    assert report["images"] == 9 and report["top1"] == pytest.approx(right / 9)
    assert report["published_top1"] is None and report["skipped"] == []

    result = run("evaluate", pets, data, "--confusion", tmp_path / "confusion.png")
    assert result.exit_code == 0
    assert f"{right / 9:.2%}" in result.stdout and "owl" in result.stdout
    with PIL.Image.open(tmp_path / "confusion.png") as image:
        assert image.width >= 640


def test_the_part_is_chosen(run: Run, pets: Path, data: Path) -> None:
    shutil.copytree(data / "val", data / "Test")
    (data / "Test" / "cat" / "0.png").unlink()
    for split, number in (("val", 9), ("test", 8)):
        assert json.loads(run("evaluate", pets, data, "--split", split, "--json").stdout)["images"] == number
    shutil.rmtree(data / "val")
    result = run("evaluate", pets, data, "--json")
    assert json.loads(result.stdout)["images"] == 8 and "no validation part" in result.stderr
    result = run("evaluate", pets, data, "--split", "train")
    assert result.exit_code == 1 and "no folder 'train'" in " ".join(result.stderr.split())


def test_unreadable_images_are_listed(run: Run, pets: Path, data: Path) -> None:
    (data / "val" / "cat" / "broken.png").write_bytes(b"broken")
    result = run("evaluate", pets, data, "--json")
    assert json.loads(result.stdout)["images"] == 9
    assert "broken.png" in result.stderr


@pytest.mark.parametrize(
    ("model", "folder", "exit_code", "message"),
    [
        ("{pets}", "{data}/nowhere", 2, "there is no folder"),
        ("internimage_x", "{data}", 2, "nearest names"),
        ("{pets}", "{data}/val/cat", 1, "no image"),
    ],
)
def test_wrong_requests(
    run: Run, pets: Path, data: Path, model: str, folder: str, exit_code: int, message: str
) -> None:
    result = run("evaluate", model.format(pets=pets), folder.format(data=data))
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert message in " ".join(result.stderr.split())


def test_other_classes_than_the_data(run: Run, pets: Path, data: Path) -> None:
    folder = data / "val" / "yak"
    folder.mkdir()
    PIL.Image.new("RGB", (5, 5)).save(folder / "0.png")
    result = run("evaluate", pets, data)
    assert result.exit_code == 1 and "does not know 'yak' of the classes" in result.stderr


def test_absent_classes_are_named(run: Run, pets: Path, data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "val" / "owl")
    result = run("evaluate", pets, data, "--confusion", tmp_path / "confusion.png")
    assert result.exit_code == 0 and "lacks 1 of the 3 classes of the model ('owl')" in " ".join(result.stderr.split())
    assert "top-1" in result.stdout and "top-5" not in result.stdout, "of three classes all are among the best five"
    assert (tmp_path / "confusion.png").is_file()
