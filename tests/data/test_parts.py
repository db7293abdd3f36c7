from __future__ import annotations

import logging
from pathlib import Path

import pytest

from internimage.data.parts import PARTS, check_part, find_part, part_folders, part_of


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("train", ("train", "Train", "TRAINING", "train2017", "training_set", "train_data", "Train-Images")),
        ("val", ("val", "Valid", "VALIDATION", "dev", "eval", "val2017", "validation_set", "val_2014")),
        ("test", ("test", "TEST", "testing", "test2014", "testset", "Test_set")),
        (None, ("trainer", "vala", "apple", "", "train1", "contest", "trainval", "tests/x", "evaluator")),
    ],
)
def test_names_of_parts(part: str | None, names: tuple[str, ...]) -> None:
    assert [part_of(name) for name in names] == [part] * len(names)


def test_folders_of_parts(tmp_path: Path) -> None:
    for name in ("Train", "validation", "Val", "classes", "test2017", ".val"):
        (tmp_path / name).mkdir()
    (tmp_path / "valid").write_text("a file")
    assert [folder.name for folder in part_folders(tmp_path, "val")] == ["Val", "validation"]
    assert [folder.name for folder in part_folders(tmp_path, "train")] == ["Train"]
    assert part_folders(tmp_path / "nowhere", "test") == []


def test_test_never_stands_in_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    assert find_part("val", {"val": 1, "test": 2}.get, "fruit") == 1
    assert find_part("test", {"val": 1, "test": 2}.get, "fruit") == 2
    assert find_part("test", {"val": 1}.get, "fruit") is None and find_part("train", {"test": 1}.get, "fruit") is None
    assert not caplog.records
    assert find_part("val", {"train": 1, "test": 2}.get, "fruit") == 2
    [record] = caplog.records
    assert record.levelno == logging.WARNING and "fruit has no validation part" in record.getMessage()


def test_parts_are_checked() -> None:
    assert [check_part(part) for part in PARTS] == list(PARTS)
    with pytest.raises(ValueError, match="'train', 'val' or 'test', given 'valid'"):
        check_part("valid")
