"""What one entry of a COCO file says, read part by part: a part that is broken takes nothing else with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from reprlib import repr as repr_short  # cuts long values
from typing import Any, Generic, TypeVar

from internimage.data.objects.segmentations import Segmentation, mask_area, mask_box
from internimage.data.objects.table import MIN_LEARNABLE_SIDE, SIZE_UNKNOWN
from internimage.data.readers.mask_entries import check_segmentation
from internimage.data.untrusted.numbers import as_flag, as_integer, as_number

MAX_SIDE = 1_000_000

Note = Callable[[str], None]
Value = TypeVar("Value")
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class CocoObject:
    """One annotation.

    Args:
        box_xyxy: corners in pixels.
        segmentation: the mask; None where there is none, or none that can be used.
        lost_mask: there was a mask, and it cannot be used.
        area: square pixels, NaN where the box tells it.
        is_crowd: a region of objects that are not marked one by one ("iscrowd").
        is_ignored: an object that need not be found ("ignore").
    """

    box_xyxy: Box
    segmentation: Segmentation | None
    lost_mask: bool
    area: float
    is_crowd: bool
    is_ignored: bool

    @property
    def is_special(self) -> bool:
        """Whether it is no single object to be found."""
        return self.is_crowd or self.is_ignored

    @property
    def is_learnable(self) -> bool:
        """Whether the object is an example for training."""
        left, top, right, bottom = self.box_xyxy
        return not self.is_special and min(right - left, bottom - top) >= MIN_LEARNABLE_SIDE


def read_object(entry: dict[str, Any], size_hw: tuple[int, int], note: Note) -> CocoObject:
    """Read one annotation.

    Args:
        entry: the annotation.
        size_hw: (height, width) of its image in pixels.
        note: takes the reason for each part that is left out.

    Raises:
        ValueError: neither box nor mask say where the object is.
    """
    segmentation, had_mask = None, entry.get("segmentation") not in (None, [], "")
    if had_mask:
        try:
            segmentation = check_segmentation(entry["segmentation"], size_hw, note)
        except ValueError as error:
            note(f"{error}; its mask is left out")
    box = _box_of(entry.get("bbox"), segmentation, size_hw, note)
    return CocoObject(
        box,
        segmentation,
        had_mask and segmentation is None,
        _area(entry.get("area"), segmentation, size_hw),
        _flag(entry, "iscrowd", note),
        _flag(entry, "ignore", note),
    )


def _box_of(value: Any, segmentation: Segmentation | None, size_hw: tuple[int, int], note: Note) -> Box:
    """Return the corners that the box says, or else the mask."""
    if value in (None, []) and segmentation is not None:
        return mask_box(segmentation, size_hw)
    try:
        left, top, width, height = read_box(value, size_hw)
    except ValueError as error:
        if segmentation is None:
            raise
        note(f"{error}; its box is taken from its mask")
        return mask_box(segmentation, size_hw)
    return left, top, left + width, top + height


def read_box(value: Any, size_hw: tuple[int, int]) -> Box:
    """Return left, top, width and height in pixels, from numbers or the texts of numbers.

    Raises:
        ValueError: it is no box, or lies outside of the image.
    """
    if isinstance(value, str):
        value = value.strip("[]() ").replace(",", " ").split()
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"bad box: expected [left, top, width, height], given {repr_short(value)}")
    numbers = [as_number(side) for side in value]
    if None in numbers:
        raise ValueError(f"bad box: {repr_short(value)} holds a value that is not finite or no number")
    left, top, width, height = (number for number in numbers if number is not None)
    if width <= 0 or height <= 0:
        raise ValueError(f"bad box: width {width:g} and height {height:g} must be positive")
    if left >= size_hw[1] or top >= size_hw[0] or left + width <= 0 or top + height <= 0:
        raise ValueError(f"bad box: {repr_short(value)} lies outside of the image (height, width) {size_hw}")
    return left, top, width, height


def _area(value: Any, segmentation: Segmentation | None, size_hw: tuple[int, int]) -> float:
    """Return the area in square pixels; where the entry gives none above 0, that of the mask, or NaN."""
    area = as_number(value)
    if area is not None and 0 < area <= MAX_SIDE**2:
        return area
    own = 0.0 if segmentation is None else mask_area(segmentation, size_hw)
    return own if own > 0 else float("nan")


def _flag(entry: dict[str, Any], key: str, note: Note) -> bool:
    try:
        return as_flag(entry.get(key))
    except ValueError as error:
        note(f'bad "{key}": {error}; it is taken for 0')
        return False


def read_size(image: dict[str, Any]) -> tuple[int, int]:
    """Return (height, width) in pixels, (0, 0) where the entry does not say both."""
    height, width = (as_integer(image.get(name)) or 0 for name in ("height", "width"))
    return (height, width) if 0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE else SIZE_UNKNOWN


def read_id(value: Any) -> int | str | None:
    """Return the id of an image: an integer, or a text as it is; None where it is neither."""
    return value if isinstance(value, str) else as_integer(value)


class Ids(Generic[Value]):
    """What ids stand for, found by the very id, or by the number that it spells where only one does."""

    def __init__(self) -> None:
        self._exact: dict[int | str, Value] = {}
        self._by_number: dict[int, Value | None] = {}  # None: several texts spell this number

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        return len(self._exact)

    def add(self, key: int | str, value: Value) -> bool:
        """Add an id; returns whether it is new."""
        if key in self._exact:
            return False
        self._exact[key] = value
        number = as_integer(key)
        if number is not None:
            self._by_number[number] = None if number in self._by_number else value
        return True

    def get(self, key: object) -> Value | None:
        """Return what an id stands for, None for an unknown or ambiguous one."""
        own = read_id(key)
        if own is None:
            return None
        if own in self._exact:
            return self._exact[own]
        number = as_integer(own)
        return None if number is None else self._by_number.get(number)
