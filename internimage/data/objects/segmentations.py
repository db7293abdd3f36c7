"""Masks as COCO files write them: polygons, run lengths as lists, run lengths as text.

Shape legend: P corners of a polygon, H W image size, G masks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from internimage.types import RunLengthMasks

# Corners are placed on a grid this much finer than the pixels, as the COCO tools do.
FINE = 5
MAX_OUTLINE = 1 << 25  # points of the fine grid along the outlines of one object
MAX_PIXELS = 200_000_000
MAX_LETTERS = 12  # of a number in compressed run lengths, five bits each

Polygons = tuple[np.ndarray, ...]  # each (P, 2) float64, x and y in pixels
Segmentation = Polygons | np.ndarray | str  # polygons, (runs,) int64 run lengths, or their text


def check_total(runs: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Return run lengths, if they are those of an image.

    Raises:
        ValueError: one is negative, or they do not add up to the pixels of the image.
    """
    total = int(runs.sum())
    if runs.min(initial=0) < 0 or runs.max(initial=0) > total or total != size_hw[0] * size_hw[1]:
        raise ValueError(f"bad run lengths: they add up to {total}, expected the pixels of the image, {size_hw}")
    return runs


def run_lengths_from_text(text: str, size_hw: tuple[int, int]) -> np.ndarray:
    """Read the compressed run lengths of the COCO tools; inverse of `RunLengthMasks.to_coco`.

    Raises:
        ValueError: the text is damaged or belongs to an image of another size.

    Example:
        >>> run_lengths_from_text("132", (2, 3)).tolist()
        [1, 3, 2]
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64) - ord("0")
    wrong = np.flatnonzero((codes < 0) | (codes > 63))
    if wrong.size:
        place = int(wrong[0])
        raise ValueError(f"bad run lengths: the letter {text[place]!r} (number {place + 1}) cannot stand there")
    is_last = codes & 32 == 0
    if not codes.size or not is_last[-1]:
        raise ValueError("bad run lengths: the text ends within a number")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1  # letters of each number
    if sizes.max() > MAX_LETTERS:
        raise ValueError("bad run lengths: a number has more letters than any image needs")
    places = np.arange(codes.size) - np.repeat(starts, sizes)
    runs = np.add.reduceat((codes & 31) << (5 * places), starts)
    runs -= np.where(codes[ends] & 16, 1 << (5 * sizes), 0)
    runs[1::2] = np.cumsum(runs[1::2])  # from the third on, differences to the run before the last are written
    runs[2::2] = np.cumsum(runs[2::2])
    return check_total(runs, size_hw)


def outline_changes(corners: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Return the pixels at which a polygon begins or ends, counted column by column, sorted.

    The outline is drawn on a grid five times finer than the pixels; where it crosses the middle of a pixel column, what
    is below changes between outside and inside. These are the masks of the COCO tools, pixel for pixel.

    Args:
        corners: (P, 2) x and y in pixels.
        size_hw: (height, width) of the image in pixels.

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
        segmentation: the mask; several polygons are joined.
        size_hw: (height, width) of the image in pixels.

    Raises:
        ValueError: the mask does not fit the image.
    """
    pixels = size_hw[0] * size_hw[1]
    if pixels > MAX_PIXELS:
        raise ValueError(f"an image of (height, width) {size_hw} is too large for masks")
    if isinstance(segmentation, str):
        return run_lengths_from_text(segmentation, size_hw)
    if isinstance(segmentation, np.ndarray):
        return check_total(segmentation, size_hw)
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
    """Return the masks of an image.

    Raises:
        ValueError: a mask does not fit the image.
    """
    return RunLengthMasks(tuple(torch.from_numpy(run_lengths(entry, size_hw)) for entry in segmentations), size_hw)


def to_coco_form(segmentation: Segmentation, size_hw: tuple[int, int]) -> Any:
    """Return a mask in the form of a COCO file."""
    if isinstance(segmentation, tuple):
        return [polygon.reshape(-1).tolist() for polygon in segmentation]
    counts = segmentation if isinstance(segmentation, str) else segmentation.tolist()
    return {"size": list(size_hw), "counts": counts}


def box_corners(box_xyxy: Sequence[float]) -> np.ndarray:
    """Return the (4, 2) corners of a box (left, top, right, bottom) as a polygon."""
    left, top, right, bottom = box_xyxy
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)


def polygon_area(segmentation: Polygons) -> float:
    """Return the area enclosed by polygons in square pixels, overlaps counted twice."""
    total = 0.0
    for corners in segmentation:
        following = np.roll(corners, -1, axis=0)
        total += abs(float((corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]).sum())) / 2
    return total if math.isfinite(total) else 0.0


def mask_area(segmentation: Segmentation, size_hw: tuple[int, int]) -> float:
    """Return the area of a mask in square pixels, overlaps of polygons counted twice."""
    if isinstance(segmentation, tuple):
        return polygon_area(segmentation)
    return float(run_lengths(segmentation, size_hw)[1::2].sum())


def mask_box(segmentation: Segmentation, size_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the corners (left, top, right, bottom) of what a mask covers, in pixels.

    Raises:
        ValueError: it covers nothing of the image.

    Example:
        >>> mask_box(np.array([4, 1, 7]), (3, 4))
        (1.0, 1.0, 2.0, 2.0)
    """
    height, width = size_hw
    if isinstance(segmentation, tuple):
        corners = np.concatenate(segmentation).clip(0, [width, height])
        (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    else:
        runs = run_lengths(segmentation, size_hw)
        is_filled = runs[1::2] > 0
        ends = runs.cumsum()[1::2][is_filled]
        starts = ends - runs[1::2][is_filled]
        if not ends.size:
            raise ValueError("bad mask: it is empty")
        is_tall = bool((starts // height != (ends - 1) // height).any())  # it reaches into a second column
        left, right = int(starts.min()) // height, (int(ends.max()) - 1) // height + 1
        top, bottom = (0, height) if is_tall else (int((starts % height).min()), int(((ends - 1) % height).max()) + 1)
    if right <= left or bottom <= top:
        raise ValueError("bad mask: it covers nothing of the image")
    return float(left), float(top), float(right), float(bottom)
