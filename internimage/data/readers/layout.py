"""What every layout of classification data comes down to: parts that can be opened, and the classes of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from internimage.data.dataset import ImageDataset
from internimage.data.parts import Part

# Opens a part; the names give it the numbering of the training part, None takes its own.
OpenPart: TypeAlias = Callable[[tuple[str, ...] | None], ImageDataset[int]]


def no_names() -> tuple[str, ...] | None:
    """Return the classes of a data set whose parts all know them."""
    return None


@dataclass(frozen=True)
class Layout:
    """A data set that was recognized.

    Args:
        root: its folder or file.
        parts: how its parts are opened; None stands for all of it, where it has no parts.
        class_names: returns the classes of the training part without reading more than it must, or None.
        test_is_published: whether everybody measures on the test part, because nothing else is left for validation.
        shown: what the parts are called, for messages.
    """

    root: Path
    parts: Mapping[Part | None, OpenPart]
    class_names: Callable[[], tuple[str, ...] | None] = no_names
    test_is_published: bool = False
    shown: tuple[str, ...] = ()

    @property
    def named(self) -> dict[Part, Part]:
        """The parts that have names."""
        return {part: part for part in self.parts if part is not None}

    def open(self, part: Part | None) -> ImageDataset[int]:
        """Open a part that is there, with the classes of the training part where there is one."""
        return self.parts[part](self.class_names() if part not in ("train", None) else None)
