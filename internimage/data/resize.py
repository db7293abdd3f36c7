"""Bilinear resizing of 8-bit pictures in the fixed-point arithmetic of OpenCV, as the published models were fed.

Shape legend: H W picture size in pixels.
"""

from __future__ import annotations

import numpy as np

# Weights are whole numbers of 1 / 2048; rows lose 4 bits before the second product, as in OpenCV's 16-bit lanes.
SCALE_BITS = 11


def resize_bilinear(picture: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize a picture without antialiasing.

    Args:
        picture: (H, W, 3) uint8.
        size_hw: height and width of the result, each at least 1 pixel.

    Returns:
        (height, width, 3) uint8.

    Source: OpenCV 4, resize with INTER_LINEAR on 8-bit pictures.

    Example:
        >>> resize_bilinear(np.arange(6, dtype=np.uint8).reshape(1, 2, 3), (1, 4))[0, :, 0].tolist()
        [0, 1, 2, 3]
    """
    height, width = size_hw
    if picture.shape[:2] == (height, width):
        return picture
    if picture.shape[:2] == (2 * height, 2 * width):  # OpenCV averages exact halves
        total = picture.reshape(height, 2, width, 2, 3).astype(np.uint16).sum(axis=(1, 3), dtype=np.uint16)
        return ((total + 2) >> 2).astype(np.uint8)
    top, bottom, row_weights = _taps(picture.shape[0], height)
    left, right, column_weights = _taps(picture.shape[1], width)
    # The outermost rows are repeated with their weights; columns beyond the edge are left out instead.
    beyond = right >= picture.shape[1]
    before = left < 0
    column_weights[beyond | before] = (1 << SCALE_BITS, 0)
    left = np.where(beyond, picture.shape[1] - 1, left).clip(0)
    right = right.clip(0, picture.shape[1] - 1)

    def horizontal(rows: np.ndarray) -> np.ndarray:
        part = picture[rows.clip(0, picture.shape[0] - 1)]
        first = part[:, left] * column_weights[None, :, :1]
        first += part[:, right] * column_weights[None, :, 1:]
        first >>= 4
        return first

    mixed = (horizontal(top) * row_weights[:, :1, None]) >> 16
    mixed += (horizontal(bottom) * row_weights[:, 1:, None]) >> 16
    return ((mixed + 2) >> 2).clip(0, 255).astype(np.uint8)


def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each target pixel its two source pixels, not clipped, and their (target, 2) int32 weights."""
    step = 1.0 / (target / source)
    place = ((np.arange(target) + 0.5) * step - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    fraction = place - first.astype(np.float32)
    weights = np.stack([np.float32(1) - fraction, fraction], axis=1) * np.float32(1 << SCALE_BITS)
    return first, first + 1, np.rint(weights).astype(np.int32)
