"""The classes of a data set, and which of them each class of a model is.

Shape legend: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from internimage.data.detection import DetectionDataset
from internimage.zoo import label_set

SHOWN = 5
# Classes that COCO planned and never annotated.
COCO_GAPS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})


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

    @classmethod
    def of(cls, data: DetectionDataset) -> TruthClasses:
        """Return the classes of a data set."""
        return cls(data.class_names, data.category_ids, data.frequencies, data.ancestors)


def category_ids(class_names: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers that a data set gives to its classes, for results files.

    COCO leaves out some of the numbers 1 to 90, LVIS counts from 1; other classes are counted from 0.

    Example:
        >>> category_ids(label_set("coco_80").class_names)[-3:], category_ids(["cat", "dog"])
        ((88, 89, 90), (0, 1))
    """
    names = tuple(class_names)
    if names == label_set("coco_80").class_names:
        return tuple(number for number in range(1, 91) if number not in COCO_GAPS)
    start = 1 if names == label_set("lvis_v1_1203").class_names else 0
    return tuple(range(start, start + len(names)))


def match_classes(model_names: Sequence[str] | None, num_classes: int, data_names: Sequence[str]) -> np.ndarray:
    """Return the (K,) int64 class of the data set for each class of a model.

    Names agree whatever their case, and "_", "-" and a space are the same. A model without names is taken in the order
    of the data set, and so is a data set whose "names" are only numbers.

    Args:
        model_names: names of the model's classes, or None.
        num_classes: K, classes of the model.
        data_names: names of the data set's classes.

    Raises:
        ValueError: the numbers of classes differ, or a class of one is none of the other.

    Example:
        >>> match_classes(["hot dog", "cat"], 2, ["Cat", "hot_dog"]).tolist()
        [1, 0]
    """
    if num_classes != len(data_names):
        raise ValueError(
            f"the model tells {num_classes} classes apart but the data set has {len(data_names)} "
            f"({_some(data_names)}); choose the data set it was trained for, or fine-tune it"
        )
    if model_names is None or all(name.isdigit() for name in data_names):
        return np.arange(num_classes)
    places = {_normal(name): i for i, name in enumerate(data_names)}
    if len(places) < len(data_names):
        return _in_order(model_names, data_names)
    missing = [name for name in model_names if _normal(name) not in places]
    if missing:
        unused = set(places) - {_normal(name) for name in model_names}
        raise ValueError(
            f"the classes differ: {_some(missing)} of the model are none of the data set, whose others are "
            f"{_some([data_names[places[name]] for name in sorted(unused)])}; rename them in the annotations, or give "
            "the model the names of the data set (class_names)"
        )
    return np.array([places[_normal(name)] for name in model_names], dtype=np.int64)


def _in_order(model_names: Sequence[str], data_names: Sequence[str]) -> np.ndarray:
    """Take classes in order where a name stands for two of them."""
    if [_normal(name) for name in model_names] != [_normal(name) for name in data_names]:
        raise ValueError("the data set has two classes of one name, and the model's names stand in another order")
    return np.arange(len(data_names))


def _normal(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + rest
