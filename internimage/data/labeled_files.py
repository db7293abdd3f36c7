"""Image files of known classes, in folders or inside of archives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from internimage.data.class_names import NONE, place_names, some_names
from internimage.data.dataset import Sample, SampleSource
from internimage.data.images.raster import RGB, Reading
from internimage.data.images.read import read_image
from internimage.data.observation import Observation
from internimage.data.untrusted.archives import Member

# More classes than any data set has: a damaged label must not make millions of them.
MAX_CLASSES = 1_000_000


class ImageContent(NamedTuple):
    """An image as it lies in a file: name of the file below its data set, its bytes, class index, when and where."""

    name: str
    content: bytes
    label: int
    observation: Observation | None = None


@runtime_checkable
class WithFiles(Protocol):
    """A data set that has the files of its images."""

    def content(self, index: int) -> ImageContent:
        """Return the file of an image."""
        ...


class LabeledFiles:
    """Images with one class each.

    Args:
        root: folder (or archive) of the data set, from which names count.
        files: each image with its class index 0..K - 1.
        class_names: K names.
        observations: when and where each image was taken; None where nothing is known of any.
    """

    reading: Reading = RGB

    def __init__(
        self,
        root: Path,
        files: Sequence[tuple[Path | Member, int]],
        class_names: tuple[str, ...],
        observations: Sequence[Observation | None] | None = None,
    ) -> None:
        self.root, self.files, self.class_names, self._observations = root, files, class_names, observations

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64 class indices."""
        return np.array([label for _, label in self.files], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample[int]:
        file, label = self.files[index]
        return Sample(read_image(file, self.reading), label, str(file), self._observation(index))

    def _observation(self, index: int) -> Observation | None:
        return None if self._observations is None else self._observations[index]

    def source(self, index: int) -> SampleSource:
        """Return the file of an image, which may be an archive, and the name of its class."""
        file, label = self.files[index]
        name = str(file).removeprefix(str(self.root)).lstrip("\\/").replace("\\", "/")
        image = file.archive if isinstance(file, Member) else file
        known = self._observation(index)
        return SampleSource(image, self.class_names[label].encode(), name, "" if known is None else f"{known} ")

    def content(self, index: int) -> ImageContent:
        """Return the file of an image.

        Raises:
            ValueError: it lies in a damaged archive.
            OSError: it cannot be read.
        """
        file, label = self.files[index]
        content = file.read() if isinstance(file, Member) else file.read_bytes()
        return ImageContent(self.source(index).name, content, label, self._observation(index))


def class_indices(
    found: Sequence[str], class_names: tuple[str, ...] | None, place: Path
) -> tuple[list[int], tuple[str, ...]]:
    """Return the class index of each name, and the names of all classes.

    Args:
        found: class name of each image.
        class_names: the classes in the order of their indices; None takes those that are found, in alphabetical order.
        place: what messages call the data.

    Raises:
        ValueError: a name is none of `class_names`.
    """
    distinct = sorted(set(found))
    classes = tuple(distinct) if class_names is None else class_names
    index_of = dict(zip(distinct, place_names(distinct, classes), strict=True))
    unknown = [name for name, index in index_of.items() if index == NONE]
    if unknown:
        raise ValueError(
            f"{place} holds folders or labels that are no class of this data set: {some_names(unknown)}; its "
            f"classes are {some_names(classes)}"
        )
    return [index_of[name] for name in found], classes


def as_label(text: str) -> int | str:
    """Return the class that a text stands for: a number, or a name."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


def label_indices(
    found: Sequence[int | str], class_names: tuple[str, ...] | None, place: Path
) -> tuple[list[int], tuple[str, ...]]:
    """Return the class index of each label, all numbers or all names, and the names of all classes.

    Args:
        found: class of each image.
        class_names: the classes in the order of their indices; None takes what is found.
        place: what messages call the data.

    Raises:
        ValueError: labels are of both kinds, or of no class.
    """
    numbers = [label for label in found if isinstance(label, int)]
    names = [label for label in found if isinstance(label, str)]
    if numbers and names:
        raise ValueError(
            f"{place}: some labels are numbers ({numbers[0]}), others are names ({names[0]!r:.60}); use one kind"
        )
    return (
        class_indices(names, class_names, place) if names else (numbers, numbered_classes(numbers, class_names, place))
    )


def numbered_classes(labels: Sequence[int], class_names: tuple[str, ...] | None, place: Path) -> tuple[str, ...]:
    """Return the names of classes that files know by their numbers only.

    Args:
        labels: class index of each image.
        class_names: the classes, None where they have no names and are called "0", "1", ...
        place: what messages call the data.

    Raises:
        ValueError: a number is that of no class.
    """
    low, high = min(labels, default=0), max(labels, default=0)
    count = min(high + 1, MAX_CLASSES) if class_names is None else len(class_names)
    if low < 0 or high >= count:
        bad = low if low < 0 else high
        raise ValueError(f"{place} holds the class number {bad}; expected 0..{count - 1}, one for each class")
    return tuple(map(str, range(count))) if class_names is None else class_names
