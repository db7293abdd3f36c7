"""What a data set is here: numbered images with a target and a name, read one at a time.

Every task uses the same protocol; only the type of the target differs (a class index for classification).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from internimage.data.images.raster import Image, Reading
from internimage.data.observation import Observation

Target = TypeVar("Target", covariant=True)
AnyDataset = TypeVar("AnyDataset", bound="ImageDataset[Any]")


@dataclass(frozen=True)
class Sample(Generic[Target]):
    """One image of a data set.

    Args:
        image: RGB image of PIL; gray, or a `Raster` of other channels, where the data set was opened for them.
        target: what is to be learned, for classification the class index.
        name: file name, or file and number, for messages.
        observation: when and where the image was taken, where the data set knows it.
    """

    image: Image
    target: Target
    name: str
    observation: Observation | None = None


@dataclass(frozen=True)
class SampleSource:
    """Where a sample comes from, so that it is known again without being read.

    Args:
        image: its file, or its content.
        target: the file or the content of its ground truth.
        name: what it is called, the same wherever the data set lies; "" for the place of `image` among the others.
        target_note: what besides `target` decides about the ground truth.
    """

    image: Path | bytes
    target: Path | bytes
    name: str = ""
    target_note: str = ""


class ImageDataset(Protocol[Target]):
    """Numbered samples; `dataset[i]` raises a ValueError that names the file when image `i` cannot be read."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of their indices."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample[Target]: ...


class Selection(Generic[Target]):
    """Some samples of a data set, in a given order.

    Args:
        dataset: where the samples come from.
        indices: which of them, each in 0..len(dataset) - 1.
    """

    def __init__(self, dataset: ImageDataset[Target], indices: Sequence[int] | np.ndarray) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices, dtype=np.int64)
        if self.indices.size and not 0 <= self.indices.min() <= self.indices.max() < len(dataset):
            raise ValueError(f"indices must lie in 0..{len(dataset) - 1}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes of the whole data set."""
        return self.dataset.class_names

    @property
    def labels(self) -> np.ndarray:
        """Class indices of the samples, where the data set knows them without reading an image.

        Raises:
            AttributeError: it does not.
        """
        inner: Any = self.dataset
        return np.asarray(inner.labels)[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample[Target]:
        return self.dataset[int(self.indices[index])]


def hold_out(dataset: ImageDataset[Target], count: int) -> tuple[Selection[Target], Selection[Target]]:
    """Split off `count` randomly chosen samples; the same ones whenever the data set has the same length.

    Returns:
        (the remaining samples, the held-out samples).

    Raises:
        ValueError: `count` leaves one side empty.
    """
    if not 0 < count < len(dataset):
        raise ValueError(f"the held-out count must lie in 1..{len(dataset) - 1}, given {count}")
    order = np.random.default_rng(2023).permutation(len(dataset))
    return Selection(dataset, np.sort(order[count:])), Selection(dataset, np.sort(order[:count]))


def read_as(dataset: AnyDataset, reading: Reading) -> AnyDataset:
    """Return a data set whose images have the channels and the value range that a model reads.

    Args:
        dataset: a data set of this package, or a selection of one; others are returned as they are.
        reading: what the model reads, `model.config.preprocess.reading`.
    """
    if isinstance(dataset, Selection):
        changed: Any = copy.copy(dataset)
        changed.dataset = read_as(dataset.dataset, reading)
        return changed
    if getattr(dataset, "reading", reading) == reading:
        return dataset
    changed = copy.copy(dataset)
    changed.reading = reading
    return changed


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be read.

    Args:
        index: its place in the data set.
        reason: the message of the reader; it names the file.
    """

    index: int
    reason: str


def read_sample(dataset: ImageDataset[Target], index: int) -> Sample[Target] | Unreadable:
    """Read one sample; a broken image becomes an `Unreadable`, which the caller must count and report."""
    try:
        return dataset[index]
    except (ValueError, OSError) as error:
        return Unreadable(index, str(error))


def read_next(dataset: ImageDataset[Target], index: int) -> tuple[Sample[Target], list[Unreadable]]:
    """Read one sample of a training set, or the next one that can be read in its place.

    Returns:
        The sample, and the broken ones on the way to it.

    Raises:
        ValueError: not one image can be read.
    """
    unreadable: list[Unreadable] = []
    for step in range(len(dataset)):
        entry = read_sample(dataset, (index + step) % len(dataset))
        if not isinstance(entry, Unreadable):
            return entry, unreadable
        unreadable.append(entry)
    raise ValueError(f"not one image of the training set can be read: {unreadable[0].reason}")
