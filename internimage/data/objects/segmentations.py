"""Masks as COCO files write them: polygons, run lengths as lists, run lengths as text.

Shape legend: P corners of a polygon, H W image size, G masks.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from internimage.errors import MissingExtra
from internimage.types import RunLengthMasks

FINE = 5  # the COCO tools place corners on a grid this much finer than the pixels
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
        first = int(wrong[0])
        raise ValueError(f"bad run lengths: the letter {text[first]!r} (number {first + 1}) cannot stand there")
    is_last = codes & 32 == 0
    if not codes.size or not is_last[-1]:
        raise ValueError("bad run lengths: the text ends within a number")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1  # letters of each number
    if sizes.max() > MAX_LETTERS:
        raise ValueError("bad run lengths: a number has more letters than any image needs")
    letters = np.arange(codes.size) - np.repeat(starts, sizes)
    runs = np.add.reduceat((codes & 31) << (5 * letters), starts)
    runs -= np.where(codes[ends] & 16, 1 << (5 * sizes), 0)
    runs[1::2] = np.cumsum(runs[1::2])  # from the third on, differences to the run before the last are written
    runs[2::2] = np.cumsum(runs[2::2])
    return check_total(runs, size_hw)


def check_outline(corners: np.ndarray) -> None:
    """Raise ValueError where drawing a polygon, (P, 2) finite x and y in pixels, would take too long."""
    length = float(np.abs(np.roll(corners, -1, axis=0) - corners).max(axis=1).sum())
    if not (length + len(corners)) * FINE <= MAX_OUTLINE or np.abs(corners).max() > MAX_OUTLINE:
        raise ValueError(f"bad polygon: its outline has {length:.0f} pixels, more than can be drawn")


def run_lengths(segmentation: Segmentation, size_hw: tuple[int, int]) -> np.ndarray:
    """Return the run lengths of a mask: alternating runs of 0 and 1, beginning with 0, column by column.

    Args:
        segmentation: the mask; several polygons are joined.
        size_hw: (height, width) of the image in pixels.

    Raises:
        ValueError: the mask does not fit the image.
        MissingExtra: faster-coco-eval, which draws polygons, is not installed.
    """
    if size_hw[0] * size_hw[1] > MAX_PIXELS:
        raise ValueError(f"an image of (height, width) {size_hw} is too large for masks")
    if isinstance(segmentation, str):
        return run_lengths_from_text(segmentation, size_hw)
    if isinstance(segmentation, np.ndarray):
        return check_total(segmentation, size_hw)
    for polygon in segmentation:
        check_outline(polygon)
    tools = faster_coco_eval("drawing the polygons of a data set").mask
    drawn = tools.merge(tools.frPyObjects([polygon.ravel().tolist() for polygon in segmentation], *size_hw))
    return run_lengths_from_text(drawn["counts"].decode(), size_hw)


def faster_coco_eval(purpose: str) -> Any:
    """Import the package of COCO's tools, which is an extra; `purpose` says what needs it."""
    try:
        return importlib.import_module("faster_coco_eval")
    except ImportError as error:
        raise MissingExtra("faster-coco-eval", "train", purpose) from error


def decode(segmentations: Sequence[Segmentation], size_hw: tuple[int, int]) -> RunLengthMasks:
    """Return the masks of an image.

    Raises:
        ValueError: a mask does not fit the image.
        MissingExtra: faster-coco-eval, which draws polygons, is not installed.
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
