"""Masks as COCO files write them: polygons, run lengths as lists, run lengths as text.

Shape legend: P corners of a polygon, H W picture size, G masks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from reprlib import repr as repr_short  # cuts long values
from typing import Any

import numpy as np
import torch

from internimage.types import RunLengthMasks

# Corners are placed on a grid this much finer than the pixels, as the COCO tools do.
FINE = 5
MAX_OUTLINE = 1 << 25  # points of the fine grid along the outlines of one object
MAX_PIXELS = 200_000_000

Polygons = tuple[np.ndarray, ...]  # each (P, 2) float64, x and y in pixels
Segmentation = Polygons | np.ndarray | str  # polygons, (runs,) int64 run lengths, or their text


def check_segmentation(value: Any, size_hw: tuple[int, int] | None) -> Segmentation:
    """Read a "segmentation" entry of a COCO file.

    Args:
        value: a list of polygons [x1, y1, x2, y2, ...], or {"size": [H, W], "counts": list or text}.
        size_hw: (height, width) of the picture in pixels, None where it is not known.

    Raises:
        ValueError: the entry is none of these, or does not fit the picture.
    """
    if isinstance(value, dict):
        return _check_run_lengths(value, size_hw)
    if not isinstance(value, list) or not value:
        raise ValueError(f"bad mask: expected polygons or run lengths, given {repr_short(value)}")
    return tuple(_check_polygon(polygon, size_hw) for polygon in value)


def _check_polygon(polygon: Any, size_hw: tuple[int, int] | None) -> np.ndarray:
    try:
        flat = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"bad polygon: expected a list of numbers, given {repr_short(polygon)}") from error
    if flat.ndim != 1 or flat.size < 6 or flat.size % 2:
        raise ValueError(f"bad polygon: expected at least 3 pairs x, y, given {flat.size} numbers")
    corners = flat.reshape(-1, 2)
    if not np.isfinite(corners).all():
        raise ValueError("bad polygon: a coordinate is not a finite number")
    if size_hw is not None:
        limit = np.array([size_hw[1], size_hw[0]], dtype=np.float64)
        if (corners < -limit).any() or (corners > 2 * limit).any():
            raise ValueError(f"bad polygon: it reaches far out of the picture (height, width) {size_hw}")
    return corners


def _check_run_lengths(value: dict[str, Any], size_hw: tuple[int, int] | None) -> np.ndarray | str:
    size, counts = value.get("size"), value.get("counts")
    if size_hw is not None and (not isinstance(size, list) or tuple(size) != tuple(size_hw)):
        raise ValueError(f"bad run lengths: size {repr_short(size)} is not that of the picture, {list(size_hw)}")
    if isinstance(counts, str):
        return counts
    if not isinstance(counts, list) or not all(isinstance(run, int) for run in counts):
        raise ValueError(f"bad run lengths: expected a list of integers or a text, given {repr_short(counts)}")
    return _check_total(counts, size_hw)


def _check_total(counts: Sequence[int], size_hw: tuple[int, int] | None) -> np.ndarray:
    total = sum(counts)
    if min(counts, default=-1) < 0 or (size_hw is not None and total != size_hw[0] * size_hw[1]):
        raise ValueError(f"bad run lengths: they add up to {total}, expected the pixels of the picture, {size_hw}")
    return np.array(counts, dtype=np.int64)


def run_lengths_from_text(text: str, size_hw: tuple[int, int]) -> np.ndarray:
    """Read the compressed run lengths of the COCO tools; inverse of `RunLengthMasks.to_coco`.

    Raises:
        ValueError: the text is damaged or belongs to a picture of another size.

    Example:
        >>> run_lengths_from_text("132", (2, 3)).tolist()
        [1, 3, 2]
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError(f"bad run lengths: the letter {letter!r} at number {len(counts)} cannot stand there")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("bad run lengths: the text ends within a number")
    return _check_total(counts, size_hw)


def outline_changes(corners: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Return the pixels at which a polygon begins or ends, counted column by column, sorted.

    The outline is drawn on a grid five times finer than the pixels; where it crosses the middle of a pixel column, what
    is below changes between outside and inside. These are the masks of the COCO tools, pixel for pixel.

    Args:
        corners: (P, 2) x and y in pixels.
        size_hw: (height, width) of the picture in pixels.

    Raises:
        ValueError: the outline is too long to be drawn.
    """
    height, width = size_hw
    start = np.trunc(corners * FINE + 0.5).astype(np.int64)
    end = np.roll(start, -1, axis=0)
    reach = np.abs(end - start)
    steps = reach.max(axis=1)  # (P,)
    if int(steps.sum()) + len(steps) > MAX_OUTLINE:
        raise ValueError(f"bad polygon: its outline has {int(steps.sum()) // FINE} pixels, more than can be drawn")
    is_flat = reach[:, 0] >= reach[:, 1]
    edges = np.arange(len(corners))
    main = np.where(is_flat, 0, 1)  # the axis along which each edge is followed
    is_backward = start[edges, main] > end[edges, main]
    low, high = np.where(is_backward[:, None], end, start), np.where(is_backward[:, None], start, end)
    slope = (high - low)[edges, 1 - main] / np.maximum(steps, 1)

    edge = np.repeat(edges, steps + 1)
    number = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - steps - 1, steps + 1)
    along = np.where(is_backward[edge], steps[edge] - number, number)
    across = np.trunc(low[edge, 1 - main[edge]] + slope[edge] * along + 0.5).astype(np.int64)
    along = along + low[edge, main[edge]]
    x, y = np.where(is_flat[edge], along, across), np.where(is_flat[edge], across, along)

    crossed = np.flatnonzero(x[1:] != x[:-1]) + 1
    before, after = x[crossed - 1], x[crossed]
    column = np.where(after < before, after, after - 1)
    row = np.minimum(y[crossed - 1], y[crossed])
    is_middle = (column % FINE == FINE // 2) & (column >= 0) & (column // FINE < width)
    row = np.ceil(np.clip((row[is_middle] + 0.5) / FINE - 0.5, 0, height)).astype(np.int64)
    return np.sort(column[is_middle] // FINE * height + row)


def run_lengths(segmentation: Segmentation, size_hw: tuple[int, int]) -> np.ndarray:
    """Return the run lengths of a mask: alternating runs of 0 and 1, beginning with 0, column by column.

    Args:
        segmentation: what `check_segmentation` returned; several polygons are joined.
        size_hw: (height, width) of the picture in pixels.

    Raises:
        ValueError: the mask does not fit the picture.
    """
    pixels = size_hw[0] * size_hw[1]
    if pixels > MAX_PIXELS:
        raise ValueError(f"a picture of (height, width) {size_hw} is too large for masks")
    if isinstance(segmentation, str):
        return run_lengths_from_text(segmentation, size_hw)
    if isinstance(segmentation, np.ndarray):
        return _check_total(segmentation.tolist(), size_hw)
    changes = [outline_changes(polygon, size_hw) for polygon in segmentation]
    if len(changes) == 1:
        places, counts = np.unique(changes[0], return_counts=True)
        return _lengths(places[(counts % 2 == 1) & (places < pixels)], pixels)
    inside = np.zeros(pixels, dtype=bool)
    for own in changes:
        inside |= np.bincount(own, minlength=pixels + 1)[:pixels].cumsum() % 2 == 1
    return run_lengths_of(inside)


def run_lengths_of(flat: np.ndarray) -> np.ndarray:
    """Return the run lengths of a mask given as (H * W,) bool, column by column."""
    return _lengths(np.flatnonzero(np.diff(flat, prepend=False)), flat.size)


def _lengths(changes: np.ndarray, pixels: int) -> np.ndarray:
    return np.diff(changes, prepend=0, append=pixels).astype(np.int64)


def decode(segmentations: Sequence[Segmentation], size_hw: tuple[int, int]) -> RunLengthMasks:
    """Return the masks of a picture.

    Raises:
        ValueError: a mask does not fit the picture.
    """
    return RunLengthMasks(tuple(torch.from_numpy(run_lengths(entry, size_hw)) for entry in segmentations), size_hw)


def to_coco_form(segmentation: Segmentation, size_hw: tuple[int, int]) -> Any:
    """Return a mask in the form of a COCO file."""
    if isinstance(segmentation, tuple):
        return [polygon.reshape(-1).tolist() for polygon in segmentation]
    counts = segmentation if isinstance(segmentation, str) else segmentation.tolist()
    return {"size": list(size_hw), "counts": counts}


def polygon_area(segmentation: Polygons) -> float:
    """Return the area enclosed by polygons in square pixels, overlaps counted twice."""
    total = 0.0
    for corners in segmentation:
        following = np.roll(corners, -1, axis=0)
        total += abs(float((corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]).sum())) / 2
    return total if math.isfinite(total) else 0.0
