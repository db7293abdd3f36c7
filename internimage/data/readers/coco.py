"""Annotations in the JSON form of COCO, which CrowdHuman, Objects365 and LVIS share.

Shape legend: K classes.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from reprlib import repr as repr_short  # cuts long values
from typing import Any

from internimage.data.class_names import NONE, place_names, some_names
from internimage.data.images.image_paths import ImagePaths
from internimage.data.images.read import image_size
from internimage.data.objects.dataset import DetectionDataset
from internimage.data.objects.table import SIZE_UNKNOWN, AnnotationTable
from internimage.data.parts import part_of
from internimage.data.readers.coco_entries import Ids, add_object, read_id
from internimage.data.untrusted.files import MAX_TABLE_BYTES, read_json
from internimage.data.untrusted.numbers import as_integer, read_size
from internimage.data.untrusted.problems import Broken, ProblemLog

logger = logging.getLogger(__name__)


def open_coco(
    annotation_file: str | PathLike[str],
    images: str | PathLike[str],
    *,
    root: str | PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    broken: Broken = "leave_out",
    max_bytes: int = MAX_TABLE_BYTES,
) -> DetectionDataset:
    """Open a data set in the form of COCO: COCO itself, CrowdHuman, Objects365, LVIS and most exports of tools.

    Numbers may be written as text or with a fraction of zero; sizes that the file lacks come from the headers of the
    images, boxes that it lacks from the masks. What is broken costs only itself: an object whose mask cannot be used
    keeps its box. Masks may be polygons or run lengths, as lists or as text; they are decoded when an image is read.
    Crowds ("iscrowd") and ignored objects ("ignore") are kept apart. Of LVIS, the classes that are known to be absent
    and those that are not completely marked are kept for the metrics.

    Args:
        annotation_file: JSON file with "images", "annotations" and "categories".
        images: folder that "file_name" counts from; for LVIS the one that holds `train2017/` and `val2017/`.
        root: folder of the data set, in which images are looked for whose "file_name" is that of another machine;
            None for `images`.
        class_names: expected classes in the order of their indices, to give a validation part the numbering of the
            training part; None takes the order of "categories".
        broken: what happens to broken entries: "leave_out" warns and drops them, "raise" refuses the data set.
        max_bytes: largest accepted file.

    Raises:
        FileNotFoundError: the file or all of the images are missing.
        ValueError: the file is no COCO file, lacks a class, or has broken entries and `broken` is "raise".
    """
    file, folder = Path(annotation_file), Path(images)
    root = folder if root is None else Path(root)
    document = read_json(file, max_bytes=max_bytes)
    if not isinstance(document, dict):
        raise ValueError(f"{file} is no COCO file: expected an object at the top, given {type(document).__name__}")
    entries, annotations, categories = (_list(document, key, file) for key in ("images", "annotations", "categories"))
    part = part_of(folder.name) or part_of(file.stem.rsplit("_", 1)[-1]) or part_of(file.parent.name)
    reader = _CocoReader(file, ImagePaths(folder, root, part=part), ProblemLog(broken))
    rows = _used_categories(reader.categories(categories), annotations)
    names, numbers = _numbering(rows, class_names, file)
    reader.read(entries, annotations, numbers)
    missing = reader.table.num_objects - reader.table.num_masks - reader.table.num_lost_masks
    if reader.table.num_masks and missing:
        reader.log.add(file, "annotations", f"{missing} objects have no mask, so no mask of this file is used")
    own_numbers = {number: category_id for category_id, number in reversed(numbers.items())}
    letters = {numbers[row["id"]]: row.get("frequency") for row in rows}
    frequencies = [str(letters.get(i)) for i in range(len(names))]
    return DetectionDataset(
        str(file),
        names,
        reader.table,
        category_ids=[own_numbers.get(i, -1) for i in range(len(names))],
        frequencies=frequencies if {*frequencies} <= {"r", "c", "f"} else None,
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
    """Return the class names and the class number of each category id; categories of one name are one class."""
    own_names = tuple(dict.fromkeys(row["name"] for row in rows))
    twice = [name for name, number in Counter(row["name"] for row in rows).items() if number > 1]
    if twice:
        logger.warning("%s has several categories of one name, which are one class: %s", file, some_names(twice))
    names = own_names if class_names is None else tuple(class_names)
    label_of = dict(zip(own_names, place_names(own_names, names), strict=True))
    unknown = [name for name, label in label_of.items() if label == NONE]
    if unknown:
        raise ValueError(
            f"{file} has the classes {some_names(unknown)}, which are not among the expected ones: {some_names(names)}"
        )
    return names, {row["id"]: label_of[row["name"]] for row in rows}


class _CocoReader:
    """Fills a table from the entries of one file."""

    def __init__(self, file: Path, paths: ImagePaths, log: ProblemLog) -> None:
        self.file, self.paths, self.log = file, paths, log
        self.table = AnnotationTable()

    def categories(self, entries: list[Any]) -> list[dict[str, Any]]:
        """Return the categories that have an id and a name."""
        rows: dict[int, dict[str, Any]] = {}
        for i, entry in enumerate(entries):
            place = f"categories[{i}]"
            number = as_integer(entry.get("id")) if isinstance(entry, dict) else None
            name = entry.get("name") if isinstance(entry, dict) else None
            if number is None or isinstance(name, bool) or not isinstance(name, str | int | float):
                self.log.add(self.file, place, "expected an integer id and a name")
            elif number in rows:
                self.log.add(self.file, place, f"the id {number} is used twice")
            else:
                rows[number] = {**entry, "id": number, "name": str(name)}
        if not rows:
            raise ValueError(f"{self.file} has no category with an id and a name")
        return list(rows.values())

    def read(self, images: list[Any], annotations: list[Any], numbers: dict[int, int]) -> None:
        """Read images and their objects."""
        objects, known = self._by_image(images, annotations)
        for i, image in known.items():
            image_id = read_id(image["id"])
            assert image_id is not None  # or it were not usable
            try:
                path = self.paths.find(_file_name(image))
                size_hw = read_size(image)
                size_hw = image_size(path) if size_hw == SIZE_UNKNOWN else size_hw
            except ValueError as error:
                self.log.add(self.file, f"images[{i}]", str(error))
                continue
            row = self.table.begin(path, image_id, size_hw)
            for source, key in (
                (self.table.negative_labels, "neg_category_ids"),
                (self.table.incomplete_labels, "not_exhaustive_category_ids"),
            ):
                if isinstance(image.get(key), list):
                    labels = (_label(entry, numbers) for entry in image[key])
                    source[row] = frozenset(label for label in labels if label is not None)
            for number in objects.get(i, ()):
                self._object(row, number, annotations[number], numbers)
        self.paths.refuse_none(len(self.table), self.file)

    def _by_image(
        self, images: list[Any], annotations: list[Any]
    ) -> tuple[dict[int, list[int]], dict[int, dict[str, Any]]]:
        """Return the annotations of each image, and the usable images, all by index."""
        ids = Ids()
        usable: dict[int, dict[str, Any]] = {}
        for i, image in enumerate(images):
            own = read_id(image.get("id")) if isinstance(image, dict) else None
            if own is None:
                self.log.add(self.file, f"images[{i}]", "expected an object with an id")
            elif not ids.add(own, i):
                self.log.add(self.file, f"images[{i}]", f"the id {own} is used twice")
            else:
                usable[i] = image
        objects: dict[int, list[int]] = defaultdict(list)
        for i, entry in enumerate(annotations):
            if not isinstance(entry, dict):
                self.log.add(self.file, f"annotations[{i}]", "expected an object")
                continue
            image = ids.get(entry.get("image_id"))
            if image is None:
                given = repr_short(entry.get("image_id"))
                self.log.add(self.file, _place(i, entry), f"no image has the id {given}")
            else:
                objects[image].append(i)
        return objects, usable

    def _object(self, row: int, number: int, entry: dict[str, Any], numbers: dict[int, int]) -> None:
        """Read one annotation."""
        place = _place(number, entry)
        label = _label(entry.get("category_id"), numbers)
        if label is None:
            given = repr_short(entry.get("category_id"))
            self.log.add(self.file, place, f"unknown class: no category has the id {given}")
            return
        self.table.has_entry[row] = True
        try:
            add_object(self.table, row, label, entry, partial(self.log.add, self.file, place))
        except ValueError as error:
            self.log.add(self.file, place, str(error))


def _file_name(image: dict[str, Any]) -> Any:
    """Return what an image's file is called; LVIS names it by the end of its address."""
    name = image.get("file_name")
    is_address = name is None and isinstance(image.get("coco_url"), str)
    return "/".join(image["coco_url"].split("/")[-2:]) if is_address else name


def _place(number: int, entry: dict[str, Any]) -> str:
    return f"annotations[{number}] (id {repr_short(entry.get('id'))})"


def _label(value: Any, numbers: dict[int, int]) -> int | None:
    """Return the number of a class by its id."""
    number = as_integer(value)
    return None if number is None else numbers.get(number)
