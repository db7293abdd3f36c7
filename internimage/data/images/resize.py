"""Resizing of 8-bit images and label maps in the arithmetic of OpenCV, as the published models saw them.

Coefficients have 11 bits and sums are integers, so that results are equal on every machine.

Shape legend: H W image size in pixels, C channels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

COEFFICIENT_ONE = 2048  # 11 bits


def keep_ratio_size(size_hw: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
    """Return the largest (height, width) of the same aspect ratio inside of a scale, in whole pixels, at least 1.

    The larger limit of `scale` is for the longer side.

    Example:
        >>> keep_ratio_size((427, 640), (2048, 512))
        (512, 767)
    """
    height, width = size_hw
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize_bilinear(
    image: Tensor, size_hw: tuple[int, int], *, region: tuple[slice, slice] = (slice(None), slice(None))
) -> Tensor:
    """Resize an image by bilinear interpolation without antialiasing.

    Args:
        image: (H, W, C) uint8.
        size_hw: (height, width) of the resized image in pixels, each at least 1.
        region: rows and columns of the resized image that are wanted; only these are computed.

    Returns:
        (height, width, C) uint8, equal to OpenCV's `INTER_LINEAR` bit for bit, cut to `region`; a view of the given
        tensor if the size is equal.

    Raises:
        ValueError: the image is not (H, W, C) uint8, or a side is below 1.

    Example:
        >>> ramp = torch.tensor([0, 100], dtype=torch.uint8).reshape(1, 2, 1).expand(1, 2, 3)
        >>> resize_bilinear(ramp, (1, 4))[0, :, 0].tolist()
        [0, 25, 75, 100]
    """
    if image.ndim != 3 or image.dtype != torch.uint8:
        raise ValueError(f"expected an (H, W, C) uint8 image, given {tuple(image.shape)} {image.dtype}")
    if min(size_hw) < 1:
        raise ValueError(f"each side must be at least 1 pixel, given {size_hw}")
    height, width = image.shape[:2]
    rows, columns = region
    if (height, width) == tuple(size_hw):
        return image if rows == columns == slice(None) else image[rows, columns]
    if (height, width) == (2 * size_hw[0], 2 * size_hw[1]):  # OpenCV averages blocks of four instead
        blocks = image.to(torch.int32).unflatten(1, (-1, 2)).unflatten(0, (-1, 2)).sum(dim=(1, 3))
        return ((blocks + 2) >> 2).to(torch.uint8)[rows, columns]
    above, below, down = (tap[rows] for tap in _taps(size_hw[0], height, is_column=False))
    left, right, across = (tap[columns] for tap in _taps(size_hw[1], width, is_column=True))
    if not len(above) * len(left):
        return image.new_empty(len(above), len(left), image.shape[2])
    first = int(above[0])
    band = image[first : int(below[-1]) + 1]
    # (h, width', C) with 19 bits, cut to 15; the rows then add up to 8 bits and two more for rounding.
    wide = torch.index_select(band, 1, left).to(torch.int32).mul_(COEFFICIENT_ONE - across[:, None])
    wide += torch.index_select(band, 1, right).to(torch.int32).mul_(across[:, None])
    wide >>= 4
    result = torch.index_select(wide, 0, above - first).mul_(COEFFICIENT_ONE - down[:, None, None]) >> 16
    result += torch.index_select(wide, 0, below - first).mul_(down[:, None, None]) >> 16
    return ((result + 2) >> 2).to(torch.uint8)


def resize_nearest(
    label_map: np.ndarray, size_hw: tuple[int, int], *, region: tuple[slice, slice] = (slice(None), slice(None))
) -> np.ndarray:
    """Resize a label map by taking the pixel at or before each place, as OpenCV's `INTER_NEAREST` does.

    Args:
        label_map: (H, W).
        size_hw: (height, width) of the resized map in pixels, each at least 1.
        region: rows and columns of the resized map that are wanted; only these are computed.

    Returns:
        (height, width), cut to `region`.

    Example:
        >>> resize_nearest(np.array([[3, 7]]), (1, 5)).tolist()
        [[3, 3, 3, 7, 7]]
    """
    rows, columns = (
        np.minimum((np.arange(new) * (1.0 / (new / old))).astype(np.int64), old - 1)[part]
        for new, old, part in zip(size_hw, label_map.shape, region, strict=True)
    )
    return label_map[rows[:, None], columns]


def _taps(new: int, old: int, *, is_column: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return both source indices of every new pixel and the integer coefficient of the second one."""
    position = ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5).float()
    first = position.floor()
    fraction = position - first
    if is_column:  # at the left and right edge OpenCV clamps the position, at the top and bottom the index
        outside = (first < 0) | (first >= old - 1)
        fraction = torch.where(outside, torch.zeros_like(fraction), fraction)
    low = first.long()
    coefficient = (fraction * COEFFICIENT_ONE).round().to(torch.int32)
    return low.clamp(0, old - 1), (low + 1).clamp(0, old - 1), coefficient
