"""Garments of Fashion-MNIST as parts of a image: cut out, turned and scaled.

Shape legend: P P height and width of a turned garment.
"""

from __future__ import annotations

import math

import numpy as np
import PIL.Image
from PIL.Image import Resampling, Transform
from skimage.measure import label

BRIGHT = 12  # gray values above belong to the garment, 0..255
SMALL_PIECE, SMALL_HOLE = 6, 12  # pixels of the 28x28 image


def garment_mask(gray: np.ndarray) -> np.ndarray:
    """Return the bool mask of a garment: what is brighter than a threshold, without specks and small holes.

    Args:
        gray: (28, 28) uint8 image on black.
    """
    mask = _without_small(gray > BRIGHT, SMALL_PIECE)
    mask = ~_without_small(~mask, SMALL_HOLE)
    return mask if mask.any() else np.ones_like(mask)


def _without_small(mask: np.ndarray, limit: int) -> np.ndarray:
    """Remove connected parts of fewer than `limit` pixels."""
    parts = np.asarray(label(mask, connectivity=1))
    is_large = np.bincount(parts.ravel()) >= limit
    return is_large[parts] & mask


def turned(gray: np.ndarray, mask: np.ndarray, long_side: float, turn: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Turn and scale a garment so that the longer side of its box gets a length in pixels.

    Args:
        gray: (28, 28) uint8 image.
        mask: (28, 28) bool, what belongs to the garment.
        long_side: length in pixels.
        turn: angle in radians, clockwise.

    Returns:
        (P, P) shades 0..255, (P, P) coverage 0..1, and the scale in scene pixels per pixel of the garment.
    """
    cosine, sine = math.cos(turn), math.sin(turn)
    y, x = np.nonzero(mask)
    across, down = cosine * x - sine * y, sine * x + cosine * y
    extent_w, extent_h = float(np.ptp(across)) + 1, float(np.ptp(down)) + 1
    scale = long_side / max(extent_w, extent_h)
    size = (max(1, math.ceil(extent_w * scale - 1e-6)), max(1, math.ceil(extent_h * scale - 1e-6)))
    a, b = cosine / scale, sine / scale
    middle_x, middle_y = (across.max() + across.min()) / 2, (down.max() + down.min()) / 2
    center_x, center_y = cosine * middle_x + sine * middle_y + 0.5, cosine * middle_y - sine * middle_x + 0.5
    matrix = (
        a, b, center_x - a * size[0] / 2 - b * size[1] / 2,
        -b, a, center_y + b * size[0] / 2 - a * size[1] / 2,
    )  # fmt: skip
    filled = _bled(gray, mask)
    layers = [
        np.asarray(PIL.Image.fromarray(layer).transform(size, Transform.AFFINE, matrix, Resampling.BICUBIC))
        for layer in (filled.astype(np.float32), mask.astype(np.float32))
    ]
    return np.clip(layers[0], 0, 255), np.clip(layers[1], 0, 1), scale


def _bled(gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Continue the shades of a garment past its edge, so that interpolation draws no black rim."""
    shades, known = gray * mask.astype(np.float32), mask.astype(np.float32)
    for _ in range(3):
        sums, counts = _neighbors(shades), _neighbors(known)
        new = (known == 0) & (counts > 0)
        shades = np.where(new, sums / np.maximum(counts, 1), shades)
        known = np.where(new, 1.0, known)
    return shades


def _neighbors(values: np.ndarray) -> np.ndarray:
    """Sum over the 3x3 pixels around each pixel."""
    padded = np.pad(values, 1)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
