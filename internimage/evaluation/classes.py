"""The classes of a model on the classes of a data set: names decide, whatever the task.

Shape legend: K classes of the data set, M classes of the model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from internimage.data.class_names import (
    IMAGENET_1K_CLASSES,
    IMAGENET_22K_CLASSES,
    ClassMatch,
    match_classes,
    some_names,
)
from internimage.data.parts import part_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownClasses:
    """The classes of a data set, all of which a model knows.

    Args:
        outputs: (K,) int64 class of the model for each class of the data set.
        num_outputs: M.
        absent: names of the model's classes that the data set lacks; no metric is about them.
    """

    outputs: np.ndarray
    num_outputs: int
    absent: tuple[str, ...]

    @property
    def order(self) -> np.ndarray:
        """Classes of the model in the order of the data set, after them those that the data set lacks."""
        others = np.setdiff1d(np.arange(self.num_outputs), self.outputs) if self.absent else self.outputs[:0]
        return np.concatenate([self.outputs, others])

    @property
    def is_identity(self) -> bool:
        """Whether model and data set have the same classes under the same indices."""
        return not self.absent and self.outputs.tolist() == list(range(self.num_outputs))

    @property
    def data_classes(self) -> np.ndarray:
        """(M,) int64 class of the data set for each class of the model, -1 where the data set lacks it."""
        classes = np.full(self.num_outputs, -1, dtype=np.int64)
        classes[self.outputs] = np.arange(len(self.outputs))
        return classes


def known_classes(model_names: Sequence[str] | None, num_outputs: int, data_names: Sequence[str]) -> KnownClasses:
    """Find the classes of a data set among those of a model, see `internimage.data.class_names`.

    Classes that the data set lacks are named in the log. A model of ImageNet-22k is measured on ImageNet-1k as
    published, by the rows of the same classes only.

    Args:
        model_names: names of the model's classes, or None.
        num_outputs: M.
        data_names: names of the data set's classes.

    Raises:
        ValueError: the data set has a class that the model does not know, or a side has no names and the numbers of
            classes differ.

    Example:
        >>> known_classes(["hot dog", "cat"], 2, ["Cat", "hot_dog"]).outputs.tolist()
        [1, 0]
    """
    match = match_classes(data_names, num_outputs if model_names is None else model_names)
    if match is None:
        raise ValueError(
            f"the model answers with {num_outputs} classes but the data set has {len(data_names)} "
            f"({some_names(data_names)}), and one side has no names to tell which is which; choose the data set it was "
            "trained for, or fine-tune it"
        )
    if match.missing:
        raise ValueError(_unknown(match, model_names or (), data_names))
    absent = () if (num_outputs, len(data_names)) == (IMAGENET_22K_CLASSES, IMAGENET_1K_CLASSES) else match.unused
    if absent:
        logger.warning(
            "the data set lacks %d of the %d classes of the model (%s): metrics are of the other %d",
            len(absent),
            num_outputs,
            some_names(absent),
            len(data_names),
        )
    if not match.by_name and model_names is not None:
        logger.warning(
            "the classes of the model (%s) and of the data set (%s) have no names in common, and one side only has "
            "numbers: they are taken by number",
            some_names(model_names, shown=3),
            some_names(data_names, shown=3),
        )
    return KnownClasses(np.array(match.rows, dtype=np.int64), num_outputs, absent)


def _unknown(match: ClassMatch, model_names: Sequence[str], data_names: Sequence[str]) -> str:
    if all(part_of(name) is not None for name in data_names):
        advice = "these look like the parts of a data set: give the folder that holds them, or that of one part"
    else:
        advice = (
            "give them the names of the model where they mean the same, leave them out, or fine-tune the model on this "
            "data (internimage train, model.weights=...)"
        )
    return (
        f"the model does not know {some_names(match.missing)} of the classes of the data set "
        f"({some_names(data_names)}); its own are {some_names(model_names)}; {advice}"
    )
