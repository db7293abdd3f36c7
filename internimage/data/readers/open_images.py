"""Annotations in the CSV form of OpenImages: boxes as fractions of the image, groups, checked classes, a hierarchy.

Shape legend: K classes.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from internimage.data.images.image_paths import ImagePaths
from internimage.data.objects.dataset import DetectionDataset
from internimage.data.objects.table import AnnotationTable
from internimage.data.untrusted.files import MAX_TABLE_BYTES, read_json, read_text
from internimage.data.untrusted.numbers import as_number
from internimage.data.untrusted.problems import Broken, ProblemLog

BOX_COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
MAX_HIERARCHY_BYTES = 16 << 20


def open_open_images(
    boxes_file: str | PathLike[str],
    images: str | PathLike[str],
    classes_file: str | PathLike[str],
    *,
    image_labels_file: str | PathLike[str] | None = None,
    hierarchy_file: str | PathLike[str] | None = None,
    broken: Broken = "leave_out",
    max_bytes: int = MAX_TABLE_BYTES,
) -> DetectionDataset:
    """Open OpenImages. Groups ("IsGroupOf") are learned like single objects, and special for the metrics.

    Args:
        boxes_file: `oidv6-train-annotations-bbox.csv`, `validation-annotations-bbox.csv`.
        images: folder with `<ImageID>.jpg`.
        classes_file: `class-descriptions-boxable.csv`, one line with code and name for each class.
        image_labels_file: `validation-annotations-human-imagelabels-boxable.csv`, the classes that were checked for
            each image; None without.
        hierarchy_file: `bbox_labels_600_hierarchy.json`, which class lies above which; None without.
        broken: what happens to broken lines: "leave_out" warns and drops them, "raise" refuses the data set.
        max_bytes: largest accepted table.

    Raises:
        FileNotFoundError: a file or all of the images are missing.
        ValueError: a file has another form, or there are broken lines and `broken` is "raise".
    """
    boxes_path, log = Path(boxes_file), ProblemLog(broken)
    codes, names = read_classes(Path(classes_file))
    numbers = {code: i for i, code in enumerate(codes)}
    objects: dict[str, list[tuple[tuple[float, ...], int, bool]]] = defaultdict(list)
    for line, row in _rows(boxes_path, BOX_COLUMNS, max_bytes):
        try:
            box = _box(row)
            label = _label(row, numbers)
        except ValueError as error:
            log.add(boxes_path, f"line {line}", str(error))
            continue
        is_group = (as_number(row.get("IsGroupOf")) or 0) > 0  # -1 says that nobody looked
        objects[row["ImageID"]].append((box, label, is_group))
    checked = {} if image_labels_file is None else _checked(Path(image_labels_file), numbers, log, max_bytes)
    table, paths = AnnotationTable(is_relative=True), ImagePaths(Path(images))
    for image_id, entries in objects.items():
        try:
            path = paths.find(f"{image_id}.jpg", image_id)
        except ValueError as error:
            log.add(boxes_path, f"image {image_id!r:.60}", str(error))
            continue
        image = table.begin(path, image_id)
        table.has_entry[image] = True
        table.negative_labels[image] = frozenset(checked.get(image_id, ()))
        for box, label, is_group in entries:
            table.add(box, label, is_special=is_group)
    paths.refuse_none(len(table), boxes_path)
    ancestors = None if hierarchy_file is None else class_ancestors(Path(hierarchy_file), codes)
    return DetectionDataset(str(boxes_path), names, table, ancestors=ancestors, problems=log.finish(str(boxes_path)))


def read_classes(file: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the codes (such as "/m/011k07") and the names of the classes, in the order of the file."""
    try:
        rows = [row for row in csv.reader(io.StringIO(read_text(file))) if row]
    except csv.Error as error:
        raise ValueError(f"{file} is no valid table ({error})") from error
    if rows and rows[0][:2] == ["LabelName", "DisplayName"]:
        rows = rows[1:]
    if not rows or any(len(row) != 2 for row in rows):
        raise ValueError(f"{file}: expected a code and a name in each line")
    codes, names = zip(*rows, strict=True)
    if len(set(codes)) != len(codes):
        raise ValueError(f"{file} names a class twice")
    return codes, names


def _rows(file: Path, columns: Sequence[str], max_bytes: int) -> Iterator[tuple[int, dict[str, str]]]:
    """Give the number and the fields of each line of a table with a heading."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file")
    if file.stat().st_size > max_bytes:
        raise ValueError(f"{file} has more than {max_bytes} bytes, the limit for files of this kind")
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        try:
            lacking = [name for name in columns if name not in (reader.fieldnames or ())]
            if lacking:
                raise ValueError(f"{file}, line 1: expected the columns {', '.join(columns)}; {lacking[0]} is missing")
            for row in reader:
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{file}, line {reader.line_num}: no valid table ({error})") from error


def _label(row: Mapping[str, str], numbers: Mapping[str, int]) -> int:
    label = numbers.get(row["LabelName"])
    if label is None:
        raise ValueError(f"unknown class {row['LabelName']!r:.60}")
    return label


def _box(row: Mapping[str, str]) -> tuple[float, float, float, float]:
    """Return corners as fractions of the image."""
    try:
        left, top, right, bottom = (float(row[name]) for name in ("XMin", "YMin", "XMax", "YMax"))
    except (TypeError, ValueError) as error:
        raise ValueError("bad box: XMin, XMax, YMin, YMax must be numbers") from error
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise ValueError("bad box: a value is not finite")
    if min(left, top) < 0 or max(right, bottom) > 1:
        raise ValueError(f"bad box: fractions must lie in 0..1, given {(left, top, right, bottom)}")
    if right <= left or bottom <= top:
        raise ValueError(f"bad box: {(left, top, right, bottom)} has no positive width and height")
    return left, top, right, bottom


def _checked(file: Path, numbers: Mapping[str, int], log: ProblemLog, max_bytes: int) -> dict[str, set[int]]:
    """Return the classes that people looked for in each image, found or not."""
    checked: dict[str, set[int]] = defaultdict(set)
    for line, row in _rows(file, ("ImageID", "LabelName", "Confidence"), max_bytes):
        try:
            checked[row["ImageID"]].add(_label(row, numbers))
        except ValueError as error:
            log.add(file, f"line {line}", str(error))
    return checked


def class_ancestors(file: Path, codes: Sequence[str]) -> np.ndarray:
    """Return (K, K) bool: row c marks class c and every class above it, by the codes of the classes.

    The file is JSON with "LabelName" and a list "Subcategory" at each level.

    Raises:
        ValueError: the file has another form.
    """
    numbers = {code: i for i, code in enumerate(codes)}
    ancestors = np.eye(len(codes), dtype=bool)
    waiting: list[tuple[Any, tuple[int, ...]]] = [(read_json(file, max_bytes=MAX_HIERARCHY_BYTES), ())]
    while waiting:
        node, above = waiting.pop()
        below = node.get("Subcategory", []) if isinstance(node, dict) else None
        if not isinstance(below, list) or not isinstance(node.get("LabelName"), str):
            raise ValueError(f'{file} is no hierarchy: each level needs a "LabelName" and may have "Subcategory"')
        number = numbers.get(node["LabelName"])
        if number is not None:
            ancestors[number, list(above)] = True
            above = (*above, number)
        waiting += [(entry, above) for entry in below]
    return ancestors
