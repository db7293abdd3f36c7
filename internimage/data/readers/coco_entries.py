"""What one entry of a COCO file says, read part by part: a part that is broken takes nothing else with it."""

from __future__ import annotations

from reprlib import repr as repr_short  # cuts long values
from typing import Any

from internimage.data.objects.segmentations import Segmentation, mask_area, mask_box
from internimage.data.objects.table import MIN_LEARNABLE_SIDE, AnnotationTable
from internimage.data.readers.mask_entries import check_segmentation
from internimage.data.untrusted.numbers import MAX_SIDE, Note, as_integer, as_number, read_flag

Box = tuple[float, float, float, float]


def add_object(table: AnnotationTable, row: int, label: int, entry: dict[str, Any], note: Note) -> None:
    """Add one annotation to an image of a table, the one begun last; `note` takes the reason for each part left out.

    Raises:
        ValueError: neither box nor mask say where the object is.
    """
    size_hw = table.size_hw(row)
    segmentation, had_mask = None, entry.get("segmentation") not in (None, [], "")
    if had_mask:
        try:
            segmentation = check_segmentation(entry["segmentation"], size_hw, note)
        except ValueError as error:
            note(f"{error}; its mask is left out")
    box = _box_of(entry.get("bbox"), segmentation, size_hw, note)
    area = _area(entry.get("area"), segmentation, size_hw)
    is_crowd, is_ignored = (read_flag(entry, key, note) for key in ("iscrowd", "ignore"))
    table.add(
        box,
        label,
        is_special=is_crowd or is_ignored,
        is_learnable=not (is_crowd or is_ignored) and min(box[2] - box[0], box[3] - box[1]) >= MIN_LEARNABLE_SIDE,
        is_ignored=is_ignored and not is_crowd,
        area=area,
        segmentation=segmentation,
        lost_mask=had_mask and segmentation is None,
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


def read_id(value: Any) -> int | str | None:
    """Return the id of an image: an integer, or a text as it is; None where it is neither."""
    return value if isinstance(value, str) else as_integer(value)


class Ids:
    """What ids stand for, found by the very id, or by the number that it spells where only one does."""

    def __init__(self) -> None:
        self._exact: dict[int | str, int] = {}
        self._by_number: dict[int, int | None] = {}  # None: several texts spell this number

    def add(self, key: int | str, value: int) -> bool:
        """Add an id; returns whether it is new."""
        if key in self._exact:
            return False
        self._exact[key] = value
        number = as_integer(key)
        if number is not None:
            self._by_number[number] = None if number in self._by_number else value
        return True

    def get(self, key: object) -> int | None:
        """Return what an id stands for, None for an unknown or ambiguous one."""
        own = read_id(key)
        if own in self._exact:
            return self._exact[own]
        number = as_integer(own)
        return None if number is None else self._by_number.get(number)
