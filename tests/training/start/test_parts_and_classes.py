"""Which part a run validates on, and where its classes come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from internimage.training import recipe
from internimage.training.own_data import wants_own_part
from internimage.training.setup import training_of

NAMES = {
    "classification": "internimage_pico_fashion",
    "detection": "mask_rcnn_internimage_pico_closet",
    "segmentation": "upernet_internimage_pico_closet",
}


def parts(root: Path, task: str, *settings: str) -> tuple[Any, Any]:
    """Open the parts as a run does."""
    chosen: Any = recipe(NAMES[task]).with_overrides(settings)
    return training_of(chosen).open(chosen, root, test_stands_in=wants_own_part(chosen))


def put(root: Path, task: str, *names: str) -> Path:
    """Write one image for each part, called like the part."""
    for name in names:
        home = root / name / {"classification": "apple", "detection": "images", "segmentation": "images"}[task]
        home.mkdir(parents=True)
        PIL.Image.new("RGB", (64, 64)).save(home / f"{name}.png")
        if task != "classification":
            (root / name / "labels").mkdir()
            (root / "classes.txt").write_text("apple\npear\n")
        if task == "detection":
            (root / name / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.6 0.6\n")
        if task == "segmentation":
            PIL.Image.fromarray(np.zeros((64, 64), np.uint8)).save(root / name / "labels" / f"{name}.png")
    return root


@pytest.mark.parametrize("task", NAMES)
@pytest.mark.parametrize("valid", ["valid", "Val", "VALIDATION"])
def test_the_validation_part_by_any_name(
    task: str, valid: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = put(tmp_path, task, "Train", valid, "test")
    train, val = parts(root, task)
    assert (Path(train[0].name).stem, Path(val[0].name).stem) == ("Train", valid) and not caplog.records
    assert train.class_names == val.class_names


@pytest.mark.parametrize("task", NAMES)
def test_no_weights_are_chosen_on_the_test_part_unless_asked_for(
    task: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = put(tmp_path, task, "train", "test")
    assert parts(root, task)[1] is None, "training images are set aside instead"
    assert "Its test part is left alone; data.val_split=test validates on it" in caplog.text
    caplog.clear()
    assert Path(parts(root, task, "data.val_split=test")[1][0].name).stem == "test" and not caplog.records
    assert Path(parts(root, task, "data.holdout=0")[1][0].name).stem == "test"
    assert "its test part is taken" in caplog.text


@pytest.mark.parametrize("task", NAMES)
def test_a_part_that_is_asked_for_must_be_there(task: str, tmp_path: Path) -> None:
    root = put(tmp_path, task, "train", "val")
    with pytest.raises(FileNotFoundError, match="test"):
        parts(root, task, "data.val_split=test")


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_classes_from_a_setting(task: str, tmp_path: Path) -> None:
    root = put(tmp_path, task, "train", "val")
    (root / "classes.txt").unlink() if task == "segmentation" else None
    (root / "fruit.txt").write_text("apple\npear\n")
    for setting in ("data.classes=fruit.txt", f"data.classes={root / 'fruit.txt'}", "data.classes=apple,pear"):
        train, val = parts(root, task, setting)
        assert train.class_names == val.class_names == ("apple", "pear")
    with pytest.raises(FileNotFoundError, match=r"data\.classes=nothing\.txt: there is no such file"):
        parts(root, task, "data.classes=nothing.txt")
    with pytest.raises(ValueError, match="there twice: apple"):
        parts(root, task, "data.classes=apple,apple")
