"""What a detector found, image by image, in memory and in the file that survives a cut run.

Shape legend: R found objects of an image.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from internimage.data.fingerprint import DataChanges, DataFingerprint
from internimage.evaluation.identity import warn_unchecked
from internimage.files import json_text, replacing, writing
from internimage.types import Detections

FORMAT, OLDER_FORMAT = "internimage predictions 2", "internimage predictions 1"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundObjects:
    """What was found in one image, best first.

    Args:
        boxes_xyxy: (R, 4) float64 corners in pixels of the image.
        scores: (R,) float64, 0..1.
        labels: (R,) int64 class numbers of the data set.
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
        """Take over a result.

        Args:
            result: what was found.
            classes: the data set's class of each class of the model; objects of -1 are left out.
        """
        masks = None if result.run_length_masks is None else tuple(result.run_length_masks.to_coco())
        labels = classes[result.labels.numpy()]
        found = cls(result.boxes_xyxy.double().numpy(), result.scores.double().numpy(), labels, masks)
        return found if (labels >= 0).all() else found.take(np.flatnonzero(labels >= 0))

    def best(self, number: int) -> FoundObjects:
        """Return the `number` objects with the best scores, in the same order."""
        if len(self) <= number:
            return self
        return self.take(np.sort(np.argsort(-self.scores, kind="stable")[:number]))

    def take(self, numbers: np.ndarray) -> FoundObjects:
        """Return the objects with these (S,) numbers, in this order."""
        masks = None if self.masks is None else tuple(self.masks[i] for i in numbers)
        return FoundObjects(self.boxes_xyxy[numbers], self.scores[numbers], self.labels[numbers], masks)

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


class PredictionLog:
    """A file with one line for each image that is done, appended to while a run goes on.

    What was found in an image does not depend on the ground truth: only images that are others now, and those that
    could not be read, are looked at again.

    Args:
        path: the file; what it holds already is kept, a line that a cut run left unfinished is dropped.
        identity: what the predictions belong to besides the data (model, settings); kept in the first line.
        data: what the data set is made of now; kept in the first line, too.
        older_data: what older releases kept of the data set.

    Raises:
        ValueError: the file is of another kind, or belongs to something else.
    """

    def __init__(self, path: Path, identity: Mapping[str, str], data: DataFingerprint, *, older_data: str) -> None:
        self.path, self._data, self._older_data = path, data, older_data
        self._header: dict[str, Any] = {"format": FORMAT, **identity, "data": data.to_plain()}
        self._changes = DataChanges()
        self.done: dict[int, FoundObjects | str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        end = self._read(identity) if path.exists() and path.stat().st_size else 0
        if end and not self._changes.are_none:
            self._drop_changed()
            end = path.stat().st_size
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._file.truncate(end)
        if end == 0:
            self._write(self._header)
        self.done = {i: found for i, found in self.done.items() if not isinstance(found, str)}

    def _drop_changed(self) -> None:
        """Write the file anew without the images that are others now."""
        changed = set(self._changes.images)
        self.done = {i: found for i, found in self.done.items() if self._data.names[i] not in changed}
        what = "they are looked at again" if changed else "what was found stays and is compared with it"
        logger.warning("%s: %s since it was written; %s", self.path, "; ".join(self._changes.texts()), what)
        with replacing(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            for entry in (self._header, *(_line(i, found) for i, found in self.done.items())):
                file.write(json.dumps(entry, separators=(",", ":")) + "\n")

    def _read(self, identity: Mapping[str, str]) -> int:
        """Take over the finished lines; return where they end, 0 where not even the first is there."""
        end = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = json.loads(line)
                    if number == 0:
                        self._check(entry, identity)
                    else:
                        self._take(entry)
                except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError, IndexError) as error:
                    raise ValueError(
                        f"{self.path}, line {number + 1}: no line of a predictions file ({error!r}); choose another "
                        "folder, or remove the file"
                    ) from error
                end += len(line)
        return end

    def _check(self, entry: Any, identity: Mapping[str, str]) -> None:
        if not isinstance(entry, dict) or entry.get("format") not in (FORMAT, OLDER_FORMAT):
            raise ValueError(f"{self.path} is no predictions file; choose another folder, or remove the file")
        differing = [name for name, value in identity.items() if entry.get(name) != value]
        if entry["format"] == FORMAT:
            self._changes = DataFingerprint.from_plain(entry.get("data")).changes(self._data)
        elif entry.get("data set") != self._older_data:
            self._changes = DataChanges(samples=("its classes or images are others",))
        else:
            warn_unchecked(self.path)
        if self._changes.classes or self._changes.samples:
            differing.insert(0, "data set")
        if differing:
            raise ValueError(
                f"{self.path} holds predictions with another {' and another '.join(differing)}; choose another folder, "
                f"or remove the file to start afresh{''.join(f'; {text}' for text in self._changes.texts())}"
            )

    def _take(self, entry: Mapping[str, Any]) -> None:
        index = int(entry["index"])
        if not 0 <= index < len(self._data.names):
            raise IndexError(f"there is no image {index}")
        if "error" in entry:
            self.done[index] = str(entry["error"])
            return
        sizes = {len(entry[name]) for name in ("boxes_xyxy", "scores", "labels")}
        size = entry.get("mask_size_hw")
        masks = None if size is None else [{"size": size, "counts": text} for text in entry["masks"]]
        if len(sizes) != 1 or (masks is not None and {len(masks)} != sizes):
            raise TypeError(f"lists of different lengths {sorted(sizes)}")
        self.done[index] = found_objects(entry["boxes_xyxy"], entry["scores"], entry["labels"], masks)

    def add(self, index: int, found: FoundObjects | str) -> None:
        """Note what was found in image `index`, or why it cannot be read."""
        self.done[index] = found
        self._write(_line(index, found))

    def _write(self, entry: Mapping[str, Any]) -> None:
        with writing(self.path):
            self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with writing(self.path):
            self._file.close()


def _line(index: int, found: FoundObjects | str) -> dict[str, Any]:
    """Return what the file holds of an image."""
    if isinstance(found, str):
        return {"index": index, "error": found}
    entry: dict[str, Any] = {"index": index, "boxes_xyxy": found.boxes_xyxy.tolist()}
    entry |= {"scores": found.scores.tolist(), "labels": found.labels.tolist()}
    if found.masks is not None:
        size = found.masks[0]["size"] if found.masks else [0, 0]
        entry |= {"mask_size_hw": size, "masks": [mask["counts"] for mask in found.masks]}
    return entry


def write_coco_results(
    path: Path, images: Sequence[tuple[int | str, FoundObjects]], category_ids: Sequence[int]
) -> None:
    """Write what was found as a COCO results file, entry by entry.

    Args:
        path: the file; written beside and renamed.
        images: the data set's name of each image, and what was found in it.
        category_ids: the data set's number of each class.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for image_id, found in images:
            for entry in found.to_coco(image_id, category_ids):
                file.write(separator + json_text(entry, separators=(",", ":")))
                separator = ",\n"
        file.write("[]\n" if separator == "[\n" else "\n]\n")
