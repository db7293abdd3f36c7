"""The file that survives a cut evaluation, without a task around it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internimage.data.fingerprint import DataFingerprint
from internimage.evaluation.record_log import FileLog, RecordFormat

NAMES = ("a", "b", "c")


def open_log(path: Path, *, images: str = "111", targets: str = "111", holds_ground_truth: bool = True) -> FileLog[int]:
    form = RecordFormat[int](
        "counts", 1, lambda record: {"count": record}, lambda entry: entry["count"], holds_ground_truth
    )
    return FileLog(path, form, {"model": "m"}, DataFingerprint(("x",), NAMES, tuple(images), tuple(targets)))


def written(path: Path) -> FileLog[int]:
    log = open_log(path)
    log.add(0, 10)
    log.add_unreadable(1, "broken")
    log.add(2, 12)
    log.close()
    return log


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_first_line_that_was_cut_is_written_anew(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "counts.jsonl"
    open_log(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    log = open_log(path)
    log.close()
    assert log.records == {} and path.read_bytes() == whole


def test_images_that_could_not_be_read_are_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "counts.jsonl"
    written(path)
    log = open_log(path)
    assert log.records == {0: 10, 2: 12}
    log.add(1, 11)
    log.close()
    again = open_log(path)
    again.close()
    assert again.records == {0: 10, 1: 11, 2: 12}


@pytest.mark.parametrize(
    ("images", "targets", "holds_ground_truth", "left"),
    [("211", "111", True, {2: 12}), ("111", "112", True, {0: 10}), ("111", "112", False, {0: 10, 2: 12})],
)
def test_what_has_changed_is_dropped(
    tmp_path: Path, images: str, targets: str, holds_ground_truth: bool, left: dict[int, int]
) -> None:
    path = tmp_path / "counts.jsonl"
    written(path)
    log = open_log(path, images=images, targets=targets, holds_ground_truth=holds_ground_truth)
    log.close()
    assert log.records == left
    header, *lines = map(json.loads, path.read_text().splitlines())
    assert header["data"]["images"] == list(images) and {entry["index"] for entry in lines} == {*left, 1}
