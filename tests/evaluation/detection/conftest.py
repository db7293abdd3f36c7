"""Recorded ground truth and detections of the original in the form that the metrics read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from internimage.evaluation.detection.ground_truth import TruePicture, TruthClasses, true_picture
from internimage.evaluation.detection.predictions import FoundObjects, found_objects

FOLDER = Path(__file__).parents[2] / "parity" / "training"
Recorded = tuple[list[TruePicture], list[FoundObjects]]


def record(name: str) -> dict[str, Any]:
    with gzip.open(FOLDER / name, "rt", encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture(scope="session")
def metrics() -> dict[str, Any]:
    return record("metrics_detection.json.gz")


@pytest.fixture(scope="session")
def crowd() -> dict[str, Any]:
    return record("metrics_crowdhuman.json.gz")


def corners(boxes: list[list[float]]) -> np.ndarray:
    """Turn (left, top, width, height) into corners."""
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    array[:, 2:] += array[:, :2]
    return array


def from_coco(gt: dict[str, Any], results: list[dict[str, Any]]) -> tuple[list[TruePicture], list[FoundObjects], Any]:
    categories = sorted(gt["categories"], key=lambda entry: entry["id"])
    numbers = {entry["id"]: i for i, entry in enumerate(categories)}
    frequencies = tuple(entry["frequency"] for entry in categories) if "frequency" in categories[0] else None
    truth, found = [], []
    for image in gt["images"]:
        own = [entry for entry in gt["annotations"] if entry["image_id"] == image["id"]]
        answers = [entry for entry in results if entry["image_id"] == image["id"]]
        truth.append(
            true_picture(
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
    return truth, found, TruthClasses(tuple(c["name"] for c in categories), tuple(numbers), frequencies)


def by_class(detections: list[list[list[float]]]) -> FoundObjects:
    """Read `detections[class]` with rows x0, y0, x1, y1, score."""
    rows = [(row, label) for label, own in enumerate(detections) for row in own]
    array = np.array([row for row, _ in rows], dtype=np.float64).reshape(-1, 5)
    return found_objects(array[:, :4], array[:, 4], [label for _, label in rows])
