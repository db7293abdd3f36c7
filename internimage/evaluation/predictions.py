"""What a detector found, image by image, in memory and in files.

Shape legend: R found objects of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from internimage.evaluation.record_log import Entry, RecordFormat
from internimage.files import json_text, replacing
from internimage.types import Detections


@dataclass(frozen=True)
class FoundObjects:
    """What was found in one image, best first.

    Args:
        boxes_xyxy: (R, 4) float64 corners in pixels of the image.
        scores: (R,) float64, 0..1.
        labels: (R,) int64 class indices of the data set.
        masks: R run lengths in the form of COCO, or None without masks.
    """

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: tuple[Mapping[str, Any], ...] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(cls, result: Detections, classes: np.ndarray) -> FoundObjects:
        """Take over a result; `classes` is the data set's class of each class of the model, -1 leaves objects out."""
        masks = None if result.run_length_masks is None else tuple(result.run_length_masks.to_coco())
        labels = classes[result.labels.numpy()]
        found = cls(result.boxes_xyxy.double().numpy(), result.scores.double().numpy(), labels, masks)
        return found if (labels >= 0).all() else found.take(np.flatnonzero(labels >= 0))

    def best(self, count: int) -> FoundObjects:
        """Return the `count` objects with the best scores, in the same order."""
        if len(self) <= count:
            return self
        return self.take(np.sort(np.argsort(-self.scores, kind="stable")[:count]))

    def take(self, indices: np.ndarray) -> FoundObjects:
        """Return the objects with these (S,) indices, in this order."""
        masks = None if self.masks is None else tuple(self.masks[i] for i in indices)
        return FoundObjects(self.boxes_xyxy[indices], self.scores[indices], self.labels[indices], masks)

    def to_coco(self, image_id: int | str, category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Give the entries of a COCO results file."""
        sides = np.concatenate([self.boxes_xyxy[:, :2], self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]], axis=1)
        rows = zip(sides.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        for i, (box, score, label) in enumerate(rows):
            entry = {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
            yield entry if self.masks is None else {**entry, "segmentation": self.masks[i]}


def found_objects(boxes_xyxy: Any, scores: Any, labels: Any, masks: Sequence[Any] | None = None) -> FoundObjects:
    """Return `FoundObjects` from lists or arrays."""
    return FoundObjects(
        np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4),
        np.asarray(scores, dtype=np.float64).reshape(-1),
        np.asarray(labels, dtype=np.int64).reshape(-1),
        None if masks is None else tuple(masks),
    )


def _to_plain(found: FoundObjects) -> dict[str, Any]:
    """Return what the file holds of an image."""
    entry: dict[str, Any] = {"boxes_xyxy": found.boxes_xyxy.tolist()}
    entry |= {"scores": found.scores.tolist(), "labels": found.labels.tolist()}
    if found.masks is not None:
        size = found.masks[0]["size"] if found.masks else [0, 0]
        entry |= {"mask_size_hw": size, "masks": [mask["counts"] for mask in found.masks]}
    return entry


def _from_plain(entry: Entry) -> FoundObjects:
    sizes = {len(entry[name]) for name in ("boxes_xyxy", "scores", "labels")}
    size = entry.get("mask_size_hw")
    masks = None if size is None else [{"size": size, "counts": text} for text in entry["masks"]]
    if len(sizes) != 1 or (masks is not None and {len(masks)} != sizes):
        raise TypeError(f"lists of different lengths {sorted(sizes)}")
    return found_objects(entry["boxes_xyxy"], entry["scores"], entry["labels"], masks)


PREDICTIONS = RecordFormat("predictions", 2, _to_plain, _from_plain, holds_ground_truth=False)


def write_coco_results(
    path: Path, images: Sequence[tuple[int | str, FoundObjects]], category_ids: Sequence[int]
) -> None:
    """Write what was found in images of these ids as a COCO results file, entry by entry."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for image_id, found in images:
            for entry in found.to_coco(image_id, category_ids):
                file.write(separator + json_text(entry, separators=(",", ":")))
                separator = ",\n"
        file.write("[]\n" if separator == "[\n" else "\n]\n")
