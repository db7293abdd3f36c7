"""Masks as files write them, read part by part: polygons in the forms that tools use, and run lengths.

Shape legend: P corners of a polygon, H W image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from reprlib import repr as repr_short  # cuts long values
from typing import Any

import numpy as np

from internimage.data.objects.segmentations import Segmentation, check_outline, check_total, run_lengths_from_text
from internimage.data.untrusted.numbers import Note, as_integer, as_number


def check_segmentation(value: Any, size_hw: tuple[int, int], note: Note) -> Segmentation:
    """Read a "segmentation" entry of a COCO file.

    Args:
        value: {"size": [H, W], "counts": list or text}, or polygons: a list of [x1, y1, x2, y2, ...] or of
            [[x1, y1], [x2, y2], ...], or a single one of these.
        size_hw: (height, width) of the image in pixels.
        note: takes the reason for each polygon that is left out, while others remain.

    Raises:
        ValueError: the entry is none of these, or nothing of it fits the image.
    """
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and "counts" in value[0]:
        value = value[0]
    if isinstance(value, dict):
        return _check_run_lengths(value, size_hw)
    if not isinstance(value, list) or not value:
        raise ValueError(f"bad mask: expected polygons or run lengths, given {repr_short(value)}")
    parts = [value] if _is_polygon(value) else value
    polygons: list[np.ndarray] = []
    reasons: list[str] = []
    for i, part in enumerate(parts):
        try:
            polygons.append(_check_polygon(part, size_hw))
        except ValueError as error:
            reasons.append(f"{error} (part {i + 1} of {len(parts)})" if len(parts) > 1 else str(error))
    if not polygons:
        raise ValueError(reasons[0])
    if reasons:
        note(f"{reasons[0]}; {len(reasons)} of {len(parts)} parts of its mask are left out")
    return tuple(polygons)


def _is_polygon(value: list[Any]) -> bool:
    """Whether a list is one polygon: of numbers, or of at least three pairs."""
    return as_number(value[0]) is not None or (len(value) > 2 and all(_is_pair(entry) for entry in value))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and not any(isinstance(entry, list) for entry in value)


def _check_polygon(polygon: Any, size_hw: tuple[int, int]) -> np.ndarray:
    if isinstance(polygon, list) and polygon and all(_is_pair(entry) for entry in polygon):
        polygon = [number for pair in polygon for number in pair]
    if not isinstance(polygon, list):
        raise ValueError(f"bad polygon: expected a list of numbers, given {repr_short(polygon)}")
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"bad polygon: expected at least 3 pairs x, y, given {len(polygon)} numbers")
    corners = _numbers(polygon).reshape(-1, 2)
    limit = np.array([size_hw[1], size_hw[0]], dtype=np.float64)
    if (corners < -limit).any() or (corners > 2 * limit).any():
        raise ValueError(f"bad polygon: it reaches far out of the image (height, width) {size_hw}")
    check_outline(corners)
    return corners


def _numbers(values: list[Any]) -> np.ndarray:
    """Return finite float64 numbers, also from the texts of numbers."""
    if not all(type(value) is float or type(value) is int for value in values):
        values = [as_number(value) for value in values]
    try:
        numbers = np.array(values, dtype=np.float64)  # None becomes NaN
    except OverflowError as error:
        raise ValueError(f"bad polygon: {error}") from error
    if not np.isfinite(numbers).all():
        first = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ValueError(f"bad polygon: value {first + 1} of {len(numbers)} is not a finite number")
    return numbers


def _check_run_lengths(value: dict[str, Any], size_hw: tuple[int, int]) -> np.ndarray | str:
    size, counts = value.get("size", list(size_hw)), value.get("counts")
    if not isinstance(size, list) or [as_integer(side) for side in size] != list(size_hw):
        raise ValueError(f"bad run lengths: size {repr_short(size)} is not that of the image, {list(size_hw)}")
    if isinstance(counts, str):
        run_lengths_from_text(counts, size_hw)
        return counts
    runs: Sequence[int | None] = [as_integer(run) for run in counts] if isinstance(counts, list) else [None]
    if None in runs:
        raise ValueError(f"bad run lengths: expected a list of integers or a text, given {repr_short(counts)}")
    return check_total(np.array(runs, dtype=np.int64), size_hw)
