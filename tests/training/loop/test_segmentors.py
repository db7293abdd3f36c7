from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from internimage.training import train
from internimage.training.setup import Setup
from tests.training.scenes import scene_recipe as tiny


def test_mask2former_learns_by_iterations(scenes: Path, tmp_path: Path) -> None:
    overrides = ("schedule.epochs=0", "schedule.iterations=3", "schedule.validate_every=2", "run.precision=bf16")
    result = train(tiny("mask2former", *overrides), data=scenes, out=tmp_path, progress=False)
    assert [row["step"] for row in result.history] == [2, 3]


def test_settings_of_the_model_reach_the_segmentor(scenes: Path) -> None:
    overrides = ("classifier_rows=9", "count_ignored_pixels=true", "num_classes=4", "architecture=segformer")
    config = Setup(tiny("upernet", *overrides), scenes).model.config
    assert (config.rows, config.num_classes, config.head.kind) == (9, 4, "segformer")
    assert config.head.count_ignored_pixels  # type: ignore[union-attr]


def test_the_number_of_classes_is_checked(scenes: Path) -> None:
    with pytest.raises(ValueError, match=r"num_classes is 3, but the data set has 4 classes \(background, red"):
        Setup(tiny("upernet", "num_classes=3"), scenes)


def test_broken_images_are_left_out_up_to_a_limit(
    scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = shutil.copytree(scenes, tmp_path / "data")
    (data / "labels" / "train" / "3.png").write_bytes(b"no mask")
    assert len(list(Setup(tiny("upernet", "max_unreadable=1"), data).epoch(0))) == 4
    assert caplog.text.count("left out an image") == 1 and "3.png" in caplog.text
    with pytest.raises(ValueError, match=r"more than 0 training images.*3\.png"):
        list(Setup(tiny("upernet", "max_unreadable=0"), data).epoch(0))


def test_holdout_and_splits(scenes: Path) -> None:
    task = Setup(tiny("upernet", "data.holdout=2"), scenes)
    assert (task.batches_per_epoch, len(task.val_set)) == (3, 2)
    task = Setup(tiny("upernet", "train_split=train+val"), scenes)
    assert (task.batches_per_epoch, len(task.val_set)) == (6, 4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.batch_size=9",), "do not fill a batch"),
        (("optimizer.accumulation_steps=5",), r"lower optimizer\.accumulation_steps"),
    ],
)
def test_too_few_images(scenes: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Setup(tiny("upernet", *overrides), scenes)


def test_a_folder_without_data_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="looked for"):
        Setup(tiny("upernet"), tmp_path)
