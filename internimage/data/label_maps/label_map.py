"""Label maps: mask files to the class of every pixel.

Shape legend: H W image size in pixels, K classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL.Image import Image

from internimage.data.images.image_file import decode_image
from internimage.types import Palette

IGNORED = 255
MAX_CLASSES = IGNORED
NOT_ALLOWED = -1
INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")


@dataclass(frozen=True)
class MaskValues:
    """What the values in mask files stand for.

    Args:
        table: class of each value 0..255, 255 for no label; -1 for values that may not occur.
        palette: for masks that are colored images: the color (red, green, blue) of each value, or None.
        ignored_colors: colors in such masks that stand for no label.

    Raises:
        ValueError: the table is not 256 entries long.
    """

    table: tuple[int, ...]
    palette: Palette | None = None
    ignored_colors: Palette = ()

    def __post_init__(self) -> None:
        if len(self.table) != 256:
            raise ValueError(f"the table must hold the class of each value 0..255, given {len(self.table)} entries")

    @cached_property
    def digest(self) -> str:
        """A short text that differs where values stand for something else."""
        content = repr((self.table, self.palette, self.ignored_colors)).encode()
        return hashlib.blake2b(content, digest_size=8).hexdigest()

    @property
    def allowed(self) -> str:
        """The values that may occur, for messages."""
        values = [i for i, label in enumerate(self.table) if label != NOT_ALLOWED]
        lows = [value for value in values if value - 1 not in values]
        highs = [value for value in values if value + 1 not in values]
        runs = zip(lows, highs, strict=True)
        return ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in runs)


def plain_values(num_classes: int, *, palette: Palette | None = None, ignored_colors: Palette = ()) -> MaskValues:
    """Return values that are class indices: 0..K - 1, and 255 for no label.

    Raises:
        ValueError: there are no classes or more than 255.
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ValueError(
            f"1..{MAX_CLASSES} classes are supported, since {IGNORED} marks pixels without one; given {num_classes}"
        )
    return mapped_values({i: i for i in range(num_classes)}, palette=palette, ignored_colors=ignored_colors)


def zero_is_nothing(num_classes: int) -> MaskValues:
    """Return values that count classes from 1; 0 and 255 stand for no label.

    Example:
        >>> zero_is_nothing(150).table[:3]
        (255, 0, 1)
    """
    return mapped_values({0: IGNORED, **{i + 1: i for i in range(num_classes)}})


def mapped_values(
    classes: Mapping[int, int], *, palette: Palette | None = None, ignored_colors: Palette = ()
) -> MaskValues:
    """Return values that stand for the classes given; 255 stands for no label, others may not occur."""
    table = [NOT_ALLOWED] * 256
    table[IGNORED] = IGNORED
    for value, label in classes.items():
        table[value] = label
    return MaskValues(tuple(table), palette, ignored_colors)


def read_label_map(path: str | Path, values: MaskValues) -> np.ndarray:
    """Read a mask file.

    Args:
        path: image of one channel, with or without a palette (the palette is for viewers, the stored numbers count),
            or a colored image where `values` has a palette.
        values: what the numbers or colors in the file stand for.

    Returns:
        (H, W) uint8 class of every pixel, 255 where there is none.

    Raises:
        ValueError: the file cannot be read, is colored without a known palette, or holds other values; the message
            names the file.
    """
    image = decode_image(path)
    if image.mode in INDEX_MODES:
        numbers = np.asarray(image)  # (H, W)
        numbers = numbers.astype(np.uint8) if numbers.dtype == bool else numbers
    else:
        numbers = _numbers_of_colors(image, path, values)
    table = np.array(values.table, dtype=np.int16)
    label_map = table[numbers] if numbers.dtype == np.uint8 else _looked_up(numbers, table)
    wrong = label_map == NOT_ALLOWED
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{path}: the mask holds the value {int(numbers[row, column])} (first at row {row}, column {column}; "
            f"{int(wrong.sum())} of {wrong.size} pixels hold values without a class), allowed are {values.allowed}; "
            "check the classes of the data set, or map the values"
        )
    return label_map.astype(np.uint8)


def _looked_up(numbers: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Look wider numbers up; what is outside of 0..255 may not occur."""
    is_inside = (numbers >= 0) & (numbers < len(table))
    return np.where(is_inside, table[np.where(is_inside, numbers, 0)], NOT_ALLOWED)


def _numbers_of_colors(image: Image, path: str | Path, values: MaskValues) -> np.ndarray:
    """Turn a colored mask into the number of each color in the palette; 255 for ignored colors."""
    if values.palette is None:
        raise ValueError(
            f"{path}: the mask is a colored image (mode {image.mode}), and colors are no class numbers; give the "
            "color of each class as `palette`, or save masks as PNG files of one channel that hold class numbers"
        )
    if image.mode not in ("RGB", "RGBA"):
        raise ValueError(f"{path}: a colored mask must be RGB, given mode {image.mode}; convert it")
    places = np.array([1 << 16, 1 << 8, 1])
    colors = np.asarray(image.convert("RGB")).astype(np.int32) @ places  # (H, W)
    known = np.array([*values.palette, *values.ignored_colors]).reshape(-1, 3) @ places
    numbers = [*range(len(values.palette)), *[IGNORED] * len(values.ignored_colors)]
    order = np.argsort(known, kind="stable")
    codes = known[order]
    indices = np.searchsorted(codes, colors).clip(max=len(codes) - 1)
    wrong = codes[indices] != colors
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        color = int(colors[row, column])
        raise ValueError(
            f"{path}: the mask holds the color {(color >> 16, color >> 8 & 255, color & 255)} (first at row {row}, "
            f"column {column}; {int(wrong.sum())} of {wrong.size} pixels), which is not in the palette; add it, or "
            "name it among the ignored colors (JPEG changes colors: save masks as PNG)"
        )
    return np.array(numbers, dtype=np.uint8)[order][indices]
