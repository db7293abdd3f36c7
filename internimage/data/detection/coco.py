"""Annotations in the JSON form of COCO, which CrowdHuman, Objects365 and LVIS share.

Shape legend: K classes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from internimage.data.detection.dataset import DetectionDataset
from internimage.data.detection.files import MAX_TABLE_BYTES, check_any_picture, inside, read_json
from internimage.data.detection.problems import Broken, ProblemLog
from internimage.data.detection.segmentations import Segmentation, check_segmentation
from internimage.data.detection.table import SIZE_UNKNOWN, AnnotationTable

MAX_SIDE = 1_000_000
MIN_LEARNABLE_SIDE = 1.0  # pixels; smaller boxes are no examples, as in the original


def open_coco(
    annotation_file: str | PathLike[str],
    pictures: str | PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    broken: Broken = "leave_out",
    max_bytes: int = MAX_TABLE_BYTES,
) -> DetectionDataset:
    """Open a data set in the form of COCO: COCO itself, CrowdHuman, Objects365, LVIS and most exports of tools.

    Masks may be polygons or run lengths, as lists or as text; they are decoded when a picture is read. Crowds
    ("iscrowd") and ignored objects ("ignore") are kept apart. Of LVIS, the classes that are known to be absent and
    those that are not completely marked are kept for the metrics.

    Args:
        annotation_file: JSON file with "images", "annotations" and "categories".
        pictures: folder that "file_name" counts from; for LVIS the one that holds `train2017/` and `val2017/`.
        class_names: expected classes in the order of their numbers, to give a validation part the numbering of the
            training part; None takes the order of "categories".
        broken: what happens to broken entries: "leave_out" warns and drops them, "raise" refuses the data set.
        max_bytes: largest accepted file.

    Raises:
        FileNotFoundError: the file or all of the pictures are missing.
        ValueError: the file is no COCO file, lacks a class, or has broken entries and `broken` is "raise".
    """
    file, folder = Path(annotation_file), Path(pictures)
    document = read_json(file, max_bytes=max_bytes)
    if not isinstance(document, dict):
        raise ValueError(f"{file} is no COCO file: expected an object at the top, given {type(document).__name__}")
    images, annotations, categories = (_list(document, key, file) for key in ("images", "annotations", "categories"))
    reader = _Reader(file, folder, ProblemLog(broken))
    rows = _used_categories(reader.categories(categories), annotations)
    names, numbers = _numbering(rows, class_names, file)
    reader.read(images, annotations, numbers)
    if 0 < reader.table.num_masks < reader.table.num_objects:
        missing = reader.table.num_objects - reader.table.num_masks
        reader.log.add(file, "annotations", f"{missing} objects have no mask, so no mask of this file is used")
    own_numbers = {number: category_id for category_id, number in numbers.items()}
    frequencies = {numbers[row["id"]]: row.get("frequency") for row in rows if row["id"] in numbers}
    has_frequencies = all(frequencies.get(i) in ("r", "c", "f") for i in range(len(names))) and bool(names)
    return DetectionDataset(
        str(file),
        names,
        reader.table,
        category_ids=[own_numbers.get(i, -1) for i in range(len(names))],
        frequencies=[str(frequencies[i]) for i in range(len(names))] if has_frequencies else None,
        problems=reader.log.finish(str(file)),
    )


def _list(document: dict[str, Any], key: str, file: Path) -> list[Any]:
    entries = document.get(key)
    if not isinstance(entries, list):
        raise ValueError(
            f'{file} is no COCO file: it has no list "{key}"; expected "images", "annotations", "categories"'
        )
    return entries


def _used_categories(rows: list[dict[str, Any]], annotations: list[Any]) -> list[dict[str, Any]]:
    """Drop the heading that Roboflow writes as a class: the parent of all others, without objects."""
    if len(rows) < 2:
        return rows
    first, others = rows[0], rows[1:]
    if not all(row.get("supercategory") == first["name"] for row in others):
        return rows
    used = any(isinstance(entry, dict) and entry.get("category_id") == first["id"] for entry in annotations)
    return rows if used else others


def _numbering(
    rows: list[dict[str, Any]], class_names: Sequence[str] | None, file: Path
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Return the class names and the class number of each category id."""
    if class_names is None:
        return tuple(row["name"] for row in rows), {row["id"]: i for i, row in enumerate(rows)}
    ids = {row["name"]: row["id"] for row in rows}
    unknown = [name for name in ids if name not in class_names]
    if unknown:
        raise ValueError(
            f"{file} has the classes {', '.join(unknown[:10])}, which are not among the expected ones: "
            f"{', '.join(class_names[:10])}{', ...' if len(class_names) > 10 else ''}"
        )
    return tuple(class_names), {ids[name]: i for i, name in enumerate(class_names) if name in ids}


class _Reader:
    """Fills a table from the entries of one file."""

    def __init__(self, file: Path, folder: Path, log: ProblemLog) -> None:
        self.file, self.folder, self.log = file, folder, log
        self.table = AnnotationTable()

    def categories(self, entries: list[Any]) -> list[dict[str, Any]]:
        """Return the categories that have an id and a name."""
        rows: dict[int, dict[str, Any]] = {}
        for i, entry in enumerate(entries):
            place = f"categories[{i}]"
            if not isinstance(entry, dict) or not _is_int(entry.get("id")) or not isinstance(entry.get("name"), str):
                self.log.add(self.file, place, "expected an integer id and a name")
            elif entry["id"] in rows:
                self.log.add(self.file, place, f"the id {entry['id']} is used twice")
            else:
                rows[entry["id"]] = entry
        if not rows:
            raise ValueError(f"{self.file} has no category with an id and a name")
        return list(rows.values())

    def read(self, images: list[Any], annotations: list[Any], numbers: dict[int, int]) -> None:
        """Read pictures and their objects."""
        objects, known = self._by_picture(images, annotations)
        missing = 0
        for i, image in known.items():
            path = self._picture_file(f"images[{i}]", image)
            if path is None:
                missing += 1
                continue
            picture = self.table.begin(path, image["id"], _size(image))
            for source, key in (
                (self.table.negative_labels, "neg_category_ids"),
                (self.table.incomplete_labels, "not_exhaustive_category_ids"),
            ):
                if isinstance(image.get(key), list):
                    source[picture] = frozenset(numbers[entry] for entry in image[key] if _known(entry, numbers))
            for number in objects.get(image["id"], ()):
                self._object(picture, number, annotations[number], numbers)
        check_any_picture(self.table.files, missing, self.file)

    def _by_picture(
        self, images: list[Any], annotations: list[Any]
    ) -> tuple[dict[int | str, list[int]], dict[int, dict[str, Any]]]:
        """Return the annotations of each picture, by place, and the usable pictures by place."""
        ids: set[int | str] = set()
        usable: dict[int, dict[str, Any]] = {}
        for i, image in enumerate(images):
            place = f"images[{i}]"
            if not isinstance(image, dict) or not isinstance(image.get("id"), int | str):
                self.log.add(self.file, place, "expected an object with an id")
            elif image["id"] in ids:
                self.log.add(self.file, place, f"the id {image['id']} is used twice")
            elif _size(image) == SIZE_UNKNOWN:
                self.log.add(self.file, place, "expected height and width in pixels")
            else:
                ids.add(image["id"])
                usable[i] = image
        objects: dict[int | str, list[int]] = defaultdict(list)
        for i, entry in enumerate(annotations):
            if not isinstance(entry, dict):
                self.log.add(self.file, f"annotations[{i}]", "expected an object")
            elif not isinstance(entry.get("image_id"), int | str) or entry["image_id"] not in ids:
                self.log.add(self.file, _place(i, entry), f"no picture has the id {entry.get('image_id')!r}")
            else:
                objects[entry["image_id"]].append(i)
        return objects, usable

    def _picture_file(self, place: str, image: dict[str, Any]) -> Path | None:
        """Return the picture's file, None where it is missing; LVIS names it by the end of its address."""
        name = image.get("file_name")
        if name is None and isinstance(image.get("coco_url"), str):
            name = "/".join(image["coco_url"].split("/")[-2:])
        try:
            path = inside(self.folder, name)
        except ValueError as error:
            self.log.add(self.file, place, str(error))
            return None
        if not path.is_file():
            self.log.add(self.file, place, f"the picture {path} is missing")
            return None
        return path

    def _object(self, picture: int, number: int, entry: dict[str, Any], numbers: dict[int, int]) -> None:
        """Read one annotation."""
        place, size_hw = _place(number, entry), self.table.size_hw(picture)
        if not _known(entry.get("category_id"), numbers):
            self.log.add(self.file, place, f"unknown class: no category has the id {entry.get('category_id')!r}")
            return
        self.table.has_entry[picture] = True
        try:
            left, top, width, height = _box(entry.get("bbox"), size_hw)
            segmentation = _mask(entry.get("segmentation"), size_hw)
        except ValueError as error:
            self.log.add(self.file, place, str(error))
            return
        is_special = bool(entry.get("iscrowd")) or bool(entry.get("ignore"))
        area = _area(entry.get("area"))
        is_large = min(width, height) >= MIN_LEARNABLE_SIDE and not area <= 0
        self.table.add(
            (left, top, left + width, top + height),
            numbers[entry["category_id"]],
            is_special=is_special,
            is_learnable=is_large and not is_special,
            area=area,
            segmentation=segmentation,
        )


def _place(number: int, entry: dict[str, Any]) -> str:
    return f"annotations[{number}] (id {entry.get('id')!r})"


def _size(image: dict[str, Any]) -> tuple[int, int]:
    height, width = (_side(image.get(name)) for name in ("height", "width"))
    return (height, width) if height and width else SIZE_UNKNOWN


def _side(value: Any) -> int:
    return value if _is_int(value) and 0 < value <= MAX_SIDE else 0


def _box(value: Any, size_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return left, top, width and height in pixels."""
    if not isinstance(value, list) or len(value) != 4 or not all(isinstance(side, int | float) for side in value):
        raise ValueError(f"bad box: expected [left, top, width, height], given {value!r:.60}")
    try:
        left, top, width, height = (float(side) for side in value)
    except OverflowError as error:
        raise ValueError(f"bad box: {error}") from error
    if not all(map(math.isfinite, (left, top, width, height))):
        raise ValueError(f"bad box: {value} holds a value that is not finite")
    if width <= 0 or height <= 0:
        raise ValueError(f"bad box: width {width:g} and height {height:g} must be positive")
    if left >= size_hw[1] or top >= size_hw[0] or left + width <= 0 or top + height <= 0:
        raise ValueError(f"bad box: {value} lies outside of the picture (height, width) {size_hw}")
    return left, top, width, height


def _area(value: Any) -> float:
    """Return the area in square pixels, NaN where the file gives none."""
    is_area = isinstance(value, int | float) and 0 <= value <= MAX_SIDE**2
    return float(value) if is_area else float("nan")


def _mask(value: Any, size_hw: tuple[int, int]) -> Segmentation | None:
    """Return the mask; an absent or empty entry means that there is none."""
    return None if value is None or value == [] else check_segmentation(value, size_hw)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _known(value: Any, numbers: dict[int, int]) -> bool:
    return _is_int(value) and value in numbers
