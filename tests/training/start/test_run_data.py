"""A run goes on with the data it was started with, and no other; what has changed is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from internimage.checkpoints.run_folder import STATE_FILE
from internimage.training import recipe, train
from internimage.training.state import DATA_FILE, load_state
from tests.training.conftest import TINY
from tests.training.runs import assert_same_state, stop_after
from tests.training.scenes import SMALL, TINY_DENSE, write_scenes


def write_folders(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("apple", "pear"):
            for i in range(8):
                path = root / split / name / f"{i}.bmp"
                path.parent.mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return root


def other_image(path: Path) -> None:
    """Put other pixels into an image; uncompressed ones keep their size in bytes."""
    with PIL.Image.open(path) as image:
        pixels = np.asarray(image).copy()
    pixels[0, 0] ^= 1
    PIL.Image.fromarray(pixels).save(path)


def edit(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def rename_class(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "apple").rename(root / split / "zebra")


def remove_class(root: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(root / split / "pear")
        shutil.copytree(root / split / "apple", root / split / "plum")


def add_class(root: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(root / split / "pear", root / split / "plum")


def grow(root: Path) -> None:
    for number in range(9):
        shutil.copy(root / "train" / "pear" / "0.bmp", root / "train" / "apple" / f"new{number}.bmp")


def rename_category(root: Path) -> None:
    for split in ("train", "val"):
        edit(root / "annotations" / f"{split}.json", lambda document: document["categories"][0].update(name="zebra"))


Change = tuple[Callable[[Path], object], str]
CLASSIFIER: list[Change] = [
    (rename_class, r"training part: 1 class removed \('apple'\)\n.*training part: 1 class added \('zebra'\)"),
    (remove_class, r"training part: 1 class removed \('pear'\)\n.*training part: 1 class added \('plum'\)"),
    (add_class, r"training part: 1 class added \('plum'\)"),
    (grow, r"training part: 9 images added \('apple/new0.bmp', 'apple/new1.bmp', 'apple/new2.bmp' and 6 more\)"),
    (lambda root: (root / "train/apple/3.bmp").unlink(), r"training part: 1 image removed \('apple/3.bmp'\)"),
    (lambda root: other_image(root / "train/apple/3.bmp"), r"training part: 1 image replaced \('apple/3.bmp'\)"),
    (lambda root: other_image(root / "val/pear/0.bmp"), r"validation part: 1 image replaced \('pear/0.bmp'\)"),
    (
        lambda root: (root / "train/apple/3.bmp").rename(root / "train/pear/moved.bmp"),
        r"1 image removed \('apple/3.bmp'\)\n.*1 image added \('pear/moved.bmp'\)",
    ),
]
DETECTOR: list[Change] = [
    (rename_category, r"training part: 1 class removed \('red'\)\n.*training part: 1 class added \('zebra'\)"),
    (
        lambda root: edit(root / "annotations/train.json", lambda d: d["annotations"][0].update(bbox=[1, 1, 20, 20])),
        r"training part: ground truth of 1 image changed \('1.png'\)",
    ),
    (
        lambda root: edit(root / "annotations/val.json", lambda d: d["annotations"].pop(0)),
        r"validation part: ground truth of 1 image changed",
    ),
    (lambda root: other_image(root / "train/2.png"), r"training part: 1 image replaced \('2.png'\)"),
    (
        lambda root: edit(root / "annotations/train.json", lambda d: d["images"].pop()),
        r"training part: 1 image removed \('8.png'\)",
    ),
]
SEGMENTOR: list[Change] = [
    (
        lambda root: (root / "classes.txt").write_text("background\nred\nblue\ngreen"),
        r"training part: classes in another order \(first 'background', 'red', 'green' and 1 more, now ",
    ),
    (
        lambda root: other_image(root / "labels/train/3.png"),
        r"training part: ground truth of 1 image changed \('3.png'\)",
    ),
    (lambda root: other_image(root / "labels/val/1.png"), r"validation part: ground truth of 1 image changed"),
    (lambda root: other_image(root / "train/3.png"), r"training part: 1 image replaced \('3.png'\)"),
]
TASKS: dict[str, tuple[Callable[[Path], Path], str, tuple[str, ...], list[Change]]] = {
    "classifier": (write_folders, "internimage_pico_fashion", (*TINY, "data.holdout=0"), CLASSIFIER),
    "detector": (write_scenes, "mask_rcnn_internimage_pico_closet", (*TINY_DENSE, *SMALL["detection"]), DETECTOR),
    "segmentor": (write_scenes, "upernet_internimage_pico_closet", (*TINY_DENSE, *SMALL["segmentation"]), SEGMENTOR),
}


@pytest.mark.parametrize("task", TASKS)
def test_other_data_is_refused(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, name, overrides, changes = TASKS[task]
    data, out = write(tmp_path / "data"), tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 1, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        train(recipe(name).with_overrides(overrides), data=data, out=out, progress=False)
    state = (out / STATE_FILE).read_bytes()
    for number, (change, message) in enumerate(changes):
        changed = tmp_path / f"changed{number}"
        shutil.copytree(data, changed)
        change(changed)
        with pytest.raises(ValueError, match=rf"is not the one that the run in [\s\S]*{message}[\s\S]*\nGo on with"):
            train(data=changed, out=out, resume=True, progress=False)
        assert (out / STATE_FILE).read_bytes() == state
    # a copy that was touched is the same data
    shutil.copytree(data, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*"):
        os.utime(path, (1, 1))
    with monkeypatch.context() as patch:
        stop_after(patch, 2, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        train(data=tmp_path / "copy", out=out, resume=True, progress=False)
    assert load_state(out)["step"] == 2


def test_without_the_file_that_explains_other_data_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_folders(tmp_path / "data")
    overrides = (*TINY, "data.holdout=0", "schedule.epochs=2")
    train("internimage_pico_fashion", data=data, out=tmp_path / "whole", overrides=overrides, progress=False)
    with monkeypatch.context() as patch:
        stop_after(patch, 1, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        train("internimage_pico_fashion", data=data, out=tmp_path / "run", overrides=overrides, progress=False)
    run, other = tmp_path / "run", write_folders(tmp_path / "other")
    other_image(other / "train" / "apple" / "0.bmp")
    rename_class(renamed := write_folders(tmp_path / "renamed"))
    for content in (b"", b"damaged", None):
        (run / DATA_FILE).unlink() if content is None else (run / DATA_FILE).write_bytes(content)
        with pytest.raises(ValueError, match="training part: its classes, images or ground truth are others"):
            train(data=other, out=run, resume=True, progress=False)

    # a run of an older release knows its classes only
    state = load_state(run)
    del state["data"]
    torch.save(state, run / STATE_FILE)
    with pytest.raises(ValueError, match="learned the classes 'apple', 'pear', but the data set has 'pear', 'zebra'"):
        train(data=renamed, out=run, resume=True, progress=False)
    assert not (run / DATA_FILE).exists()
    train(data=data, out=run, resume=True, progress=False)
    assert "cannot be checked whether images and ground truth are the same" in caplog.text
    assert_same_state(tmp_path / "whole", run)
    with pytest.raises(ValueError, match="1 image replaced"):  # from now on it is known
        train(data=other, out=run, resume=True, progress=False)
