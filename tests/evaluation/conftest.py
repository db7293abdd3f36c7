"""Recorded ground truth and detections of the original in the form that the metrics read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from internimage.data.objects.annotation import ImageAnnotation
from internimage.evaluation.object_classes import ObjectClasses
from internimage.evaluation.predictions import FoundObjects, found_objects

FOLDER = Path(__file__).parents[1] / "parity" / "data" / "training"
Recorded = tuple[list[ImageAnnotation], list[FoundObjects]]


def record(name: str) -> dict[str, Any]:
    with gzip.open(FOLDER / name, "rt", encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture(scope="session")
def metrics() -> dict[str, Any]:
    return record("metrics_detection.json.gz")


@pytest.fixture(scope="session")
def crowd() -> dict[str, Any]:
    return record("metrics_crowdhuman.json.gz")


def true_image(
    image_id: int | str,
    size_hw: tuple[int, int],
    boxes_xyxy: Any,
    labels: Any,
    *,
    is_special: Any = None,
    areas: Any = None,
    segmentations: Sequence[Any] | None = None,
    negative_labels: Sequence[int] = (),
    incomplete_labels: Sequence[int] = (),
) -> ImageAnnotation:
    """Build an annotation from lists; areas are those of the boxes unless given."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    return ImageAnnotation(
        image_id,
        size_hw,
        boxes,
        np.asarray(labels, dtype=np.int64).reshape(-1),
        np.zeros(len(boxes), dtype=bool) if is_special is None else np.asarray(is_special, dtype=bool).reshape(-1),
        sides.prod(axis=1) if areas is None else np.asarray(areas, dtype=np.float64).reshape(-1),
        None if segmentations is None else tuple(segmentations),
        frozenset(negative_labels),
        frozenset(incomplete_labels),
    )


def corners(boxes: list[list[float]]) -> np.ndarray:
    """Turn (left, top, width, height) into corners."""
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    array[:, 2:] += array[:, :2]
    return array


def from_coco(
    gt: dict[str, Any], results: list[dict[str, Any]]
) -> tuple[list[ImageAnnotation], list[FoundObjects], Any]:
    categories = sorted(gt["categories"], key=lambda entry: entry["id"])
    numbers = {entry["id"]: i for i, entry in enumerate(categories)}
    frequencies = tuple(entry["frequency"] for entry in categories) if "frequency" in categories[0] else None
    targets, found = [], []
    for image in gt["images"]:
        own = [entry for entry in gt["annotations"] if entry["image_id"] == image["id"]]
        answers = [entry for entry in results if entry["image_id"] == image["id"]]
        targets.append(
            true_image(
                image["id"],
                (image["height"], image["width"]),
                corners([entry["bbox"] for entry in own]),
                [numbers[entry["category_id"]] for entry in own],
                is_special=[entry.get("iscrowd", 0) for entry in own],
                areas=[entry["area"] for entry in own],
                segmentations=[entry["segmentation"] for entry in own],
                negative_labels=[numbers[i] for i in image.get("neg_category_ids", ())],
                incomplete_labels=[numbers[i] for i in image.get("not_exhaustive_category_ids", ())],
            )
        )
        masks = [entry["segmentation"] for entry in answers if "segmentation" in entry]
        found.append(
            found_objects(
                corners([entry["bbox"] for entry in answers]),
                [entry["score"] for entry in answers],
                [numbers[entry["category_id"]] for entry in answers],
                masks if len(masks) == len(answers) else None,
            )
        )
    return targets, found, ObjectClasses(tuple(c["name"] for c in categories), tuple(numbers), frequencies)


def by_class(detections: list[list[list[float]]]) -> FoundObjects:
    """Read `detections[class]` with rows x0, y0, x1, y1, score."""
    rows = [(row, label) for label, own in enumerate(detections) for row in own]
    array = np.array([row for row, _ in rows], dtype=np.float64).reshape(-1, 5)
    return found_objects(array[:, :4], array[:, 4], [label for _, label in rows])
