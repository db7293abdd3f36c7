"""How many examples of each class a data set holds, counted before anything is learned or measured.

Shape legend: K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from internimage.data.dataset import ImageDataset


@dataclass(frozen=True)
class ExampleCount:
    """What there is to be learned, or to be found.

    Args:
        unit: what is counted, for example "objects".
        class_names: K names.
        counts: examples of each of the K classes.
        others: what is there, but no example: how many, by what they are.
        looked_at: images that were counted.
        total: images of the data set.
        advice: what to do when there are no examples, or none of some classes.
    """

    unit: str
    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    others: Mapping[str, int] = field(default_factory=dict)
    looked_at: int = 0
    total: int = 0
    advice: str = ""

    @property
    def present(self) -> tuple[str, ...]:
        """The classes of which there are examples."""
        return tuple(name for name, count in zip(self.class_names, self.counts, strict=True) if count)

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes of which there are none."""
        return tuple(name for name, count in zip(self.class_names, self.counts, strict=True) if not count)

    @property
    def is_complete(self) -> bool:
        """Whether every image was counted, not only some of them."""
        return self.looked_at == self.total

    @property
    def scope(self) -> str:
        """The images that were counted, for messages."""
        return f"{self.total} images" if self.is_complete else f"{self.looked_at} of {self.total} images"

    def reasons(self) -> str:
        """Say what is there instead of examples, and what to do; empty where there is nothing to say."""
        rest = [f"{count} {what}" for what, count in self.others.items() if count]
        parts = [f"in {self.scope} there are {', '.join(rest)}" if rest else "", self.advice]
        return "; ".join(part for part in parts if part)


@runtime_checkable
class Labeled(Protocol):
    """A data set that knows the class of every image without reading one."""

    @property
    def labels(self) -> np.ndarray:
        """(N,) class indices."""
        ...


def count_images(dataset: ImageDataset[int]) -> ExampleCount | None:
    """Count the images of each class of a classification data set, None where it does not know them unread."""
    if not isinstance(dataset, Labeled):
        return None
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    number = len(dataset)
    return ExampleCount("images", dataset.class_names, tuple(counts.tolist()), looked_at=number, total=number)
