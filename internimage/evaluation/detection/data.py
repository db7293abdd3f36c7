"""Data sets with true objects: pictures to be read one at a time, and what they show without reading them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from internimage.data import Sample
from internimage.data.pictures import read_picture
from internimage.evaluation.detection.ground_truth import TruePicture, true_picture

PICTURE_FOLDERS = ("", "images", "val2017", "train2017", "val", "train")


class AnnotatedPictures(Protocol):
    """Numbered picture files and what they show."""

    category_ids: tuple[int, ...]
    frequencies: tuple[str, ...] | None
    ancestors: np.ndarray | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of their numbers."""
        ...

    def __len__(self) -> int: ...

    def annotation(self, index: int) -> TruePicture:
        """Return what picture `index` shows, without reading its pixels."""
        ...

    def file(self, index: int) -> Path:
        """Return the file of a picture."""
        ...


class PictureFiles:
    """Some pictures of a data set without their annotations, to be read in worker processes.

    Args:
        data: the data set.
        indices: which of its pictures.
    """

    def __init__(self, data: AnnotatedPictures, indices: Sequence[int]) -> None:
        self.class_names = data.class_names
        self.files = [data.file(i) for i in indices]
        self.sizes_hw = [data.annotation(i).size_hw for i in indices]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample[None]:
        picture = read_picture(self.files[index])
        if (picture.height, picture.width) != self.sizes_hw[index]:
            raise ValueError(
                f"{self.files[index]}: the picture has (height, width) {(picture.height, picture.width)}, its "
                f"annotations say {self.sizes_hw[index]}"
            )
        return Sample(picture, None, str(self.files[index]))


class CocoTruth:
    """Annotations in the COCO format (also LVIS and CrowdHuman in this form) and the pictures they are of.

    Args:
        annotations: content of an annotations file.
        pictures: folder with the picture files.
        name: what to call the annotations in messages.

    Raises:
        ValueError: an entry is damaged; the message names it.
    """

    def __init__(self, annotations: Mapping[str, Any], pictures: Path, *, name: str = "annotations") -> None:
        self.pictures = pictures
        entries = {part: _entries(annotations, part, name) for part in ("images", "annotations", "categories")}
        categories = sorted(entries["categories"], key=lambda entry: entry["id"])
        numbers = {entry["id"]: i for i, entry in enumerate(categories)}
        by_picture: dict[Any, list[Mapping[str, Any]]] = {entry["id"]: [] for entry in entries["images"]}
        for i, entry in enumerate(entries["annotations"]):
            if entry.get("image_id") not in by_picture or entry.get("category_id") not in numbers:
                raise ValueError(f"{name}: annotations[{i}] belongs to an unknown picture or class")
            by_picture[entry["image_id"]].append(entry)
        has_frequency = bool(categories) and all("frequency" in entry for entry in categories)
        self.class_names = tuple(str(entry["name"]) for entry in categories)
        self.category_ids = tuple(numbers)
        self.frequencies = tuple(entry["frequency"] for entry in categories) if has_frequency else None
        self.ancestors: np.ndarray | None = None
        self._files = [_file_name(entry) for entry in entries["images"]]
        self._truth = [_true_picture(entry, by_picture[entry["id"]], numbers, name) for entry in entries["images"]]

    def __len__(self) -> int:
        return len(self._truth)

    def annotation(self, index: int) -> TruePicture:
        """Return what picture `index` shows, without reading its pixels."""
        return self._truth[index]

    def file(self, index: int) -> Path:
        """Return the file of a picture."""
        return self.pictures / self._files[index]


def open_truth(annotations: str | PathLike[str], *, pictures: str | PathLike[str] | None = None) -> CocoTruth:
    """Open an annotations file in the COCO format.

    Args:
        annotations: the JSON file.
        pictures: folder with the pictures; None looks beside the file.

    Raises:
        FileNotFoundError: there is no such file, or no folder with its pictures.
        ValueError: the file is damaged.
    """
    path = Path(annotations)
    if not path.is_file():
        raise FileNotFoundError(f"there is no annotations file {path}; give a JSON file in the COCO format")
    try:
        content = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected COCO annotations")
    folder = Path(pictures) if pictures is not None else _pictures_beside(path, content)
    return CocoTruth(content, folder, name=str(path))


def _pictures_beside(path: Path, content: Mapping[str, Any]) -> Path:
    """Find the folder in which the first picture lies."""
    images = content.get("images") or [{}]
    first = _file_name(images[0]) if isinstance(images[0], dict) else ""
    roots = (path.parent, path.parent.parent)
    for folder in (root / name for root in roots for name in PICTURE_FOLDERS):
        if (folder / first).is_file():
            return folder
    raise FileNotFoundError(f"no folder beside {path} holds {first!r}; give the folder of the pictures")


def _entries(content: Mapping[str, Any], part: str, name: str) -> list[Mapping[str, Any]]:
    values = content.get(part)
    if not isinstance(values, list) or not all(isinstance(entry, dict) and "id" in entry for entry in values):
        if part == "annotations" and isinstance(values, list) and all(isinstance(entry, dict) for entry in values):
            return values
        raise ValueError(f"{name}: {part!r} must be a list of entries with an 'id'")
    return values


def _file_name(entry: Mapping[str, Any]) -> str:
    """Return the file of a picture; LVIS states only where it was downloaded from."""
    return str(entry.get("file_name") or "/".join(str(entry.get("coco_url", "")).split("/")[-2:]))


def _true_picture(
    image: Mapping[str, Any], objects: Sequence[Mapping[str, Any]], numbers: Mapping[Any, int], name: str
) -> TruePicture:
    try:
        boxes = np.array([entry["bbox"] for entry in objects], dtype=np.float64).reshape(len(objects), 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [entry.get("segmentation") for entry in objects]
        return true_picture(
            image["id"],
            (int(image["height"]), int(image["width"])),
            boxes,
            [numbers[entry["category_id"]] for entry in objects],
            is_special=[bool(entry.get("iscrowd", 0)) or bool(entry.get("ignore", 0)) for entry in objects],
            areas=[entry["area"] for entry in objects] if all("area" in entry for entry in objects) else None,
            segmentations=masks if all(masks) else None,
            negative_labels=[numbers[i] for i in image.get("neg_category_ids", ()) if i in numbers],
            incomplete_labels=[numbers[i] for i in image.get("not_exhaustive_category_ids", ()) if i in numbers],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: picture {image.get('id')!r} or its objects are damaged: {error!r}") from error
