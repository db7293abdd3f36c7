"""The classes of a data set, and their ids in results files.

Shape legend: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from internimage.data.class_names import match_classes
from internimage.data.labels import label_set
from internimage.data.objects.dataset import DetectionDataset

# Classes that COCO planned and never annotated.
COCO_GAPS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
COCO_IDS = tuple(number for number in range(1, 91) if number not in COCO_GAPS)


@dataclass(frozen=True)
class ObjectClasses:
    """The classes of a data set.

    Args:
        names: K names, in the order of the class indices.
        category_ids: the data set's own id of each class, for results files.
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

    @classmethod
    def of(cls, data: DetectionDataset) -> ObjectClasses:
        """Return the classes of a data set."""
        return cls(data.class_names, data.category_ids, data.frequencies, data.ancestors)


def category_ids(class_names: Sequence[str]) -> tuple[int, ...]:
    """Return the ids that a data set gives to its classes, for results files.

    COCO leaves out some of the numbers 1 to 90, LVIS counts from 1, in whatever order the classes stand; other classes
    are counted from 0.

    Example:
        >>> category_ids(label_set("coco_80").class_names)[-3:], category_ids(["cat", "dog"])
        ((88, 89, 90), (0, 1))
    """
    names = tuple(class_names)
    for label_set_name, numbers in (("coco_80", COCO_IDS), ("lvis_v1_1203", range(1, 1204))):
        if len(set(names)) == len(numbers):
            match = match_classes(names, label_set(label_set_name).class_names)
            if match is not None and match.by_name and not match.missing:
                return tuple(numbers[row] for row in match.rows)
    return tuple(range(len(names)))
