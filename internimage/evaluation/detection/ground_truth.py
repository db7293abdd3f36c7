"""What the pictures of a data set really show, in the one form that every metric reads.

Shape legend: G true objects of a picture, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TruthClasses:
    """The classes of a data set.

    Args:
        names: K names, in the order of the class numbers.
        category_ids: the data set's own number of each class, for results files.
        frequencies: for LVIS "r" (rare), "c" (common) or "f" (frequent) for each class, else None.
        ancestors: for OpenImages (K, K) bool, row c marks class c and everything above it in the hierarchy, else None.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    frequencies: tuple[str, ...] | None = None
    ancestors: np.ndarray | None = None

    def __post_init__(self) -> None:
        number = len(self.names)
        shape = (number, number) if self.ancestors is None else self.ancestors.shape
        counts = (len(self.category_ids), number if self.frequencies is None else len(self.frequencies))
        if counts != (number, number) or shape != (number, number):
            raise ValueError(
                f"expected {number} category_ids and frequencies and ({number}, {number}) ancestors like the names, "
                f"given {counts[0]}, {counts[1]} and {shape}"
            )

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class TruePicture:
    """What one picture shows.

    Args:
        image_id: the data set's own number or name of the picture.
        size_hw: (height, width) of the picture in pixels.
        boxes_xyxy: (G, 4) float64 corners in pixels.
        labels: (G,) int64 class numbers.
        is_special: (G,) bool boxes that are no single object to be found: crowds (COCO), groups (OpenImages), difficult
            objects (VOC), ignored regions (CrowdHuman).
        areas: (G,) float64 areas in square pixels, for COCO those of the masks.
        segmentations: polygons or run lengths in the form of COCO for each object, or None without masks.
        negative_labels: classes that are known to be absent (LVIS), or that were checked (OpenImages).
        incomplete_labels: classes of which only some objects are marked (LVIS).
    """

    image_id: int | str
    size_hw: tuple[int, int]
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    is_special: np.ndarray
    areas: np.ndarray
    segmentations: tuple[Any, ...] | None = None
    negative_labels: frozenset[int] = frozenset()
    incomplete_labels: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        number = len(self.labels)
        masks = number if self.segmentations is None else len(self.segmentations)
        counts = (len(self.boxes_xyxy), len(self.is_special), len(self.areas), masks)
        if counts != (number,) * 4:
            raise ValueError(
                f"picture {self.image_id}: expected {number} boxes, flags, areas and masks like the labels, given "
                f"{', '.join(map(str, counts))}"
            )

    def __len__(self) -> int:
        return len(self.labels)


def true_picture(
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
) -> TruePicture:
    """Return a `TruePicture` from lists or arrays.

    Args:
        image_id: see `TruePicture`.
        size_hw: see `TruePicture`.
        boxes_xyxy: G rows of four corners.
        labels: G class numbers.
        is_special: G flags, None for none.
        areas: G areas, None for those of the boxes.
        segmentations: see `TruePicture`.
        negative_labels: see `TruePicture`.
        incomplete_labels: see `TruePicture`.

    Example:
        >>> true_picture(7, (20, 30), [[0, 0, 10, 5]], [2]).areas.tolist()
        [50.0]
    """
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    return TruePicture(
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
