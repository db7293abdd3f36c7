"""Bilinear resizing of 8-bit pictures in the arithmetic of OpenCV, which the published detectors and segmentors saw.

Coefficients have 11 bits and sums are integers, so that results are equal on every machine.

Shape legend: H W picture size in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

COEFFICIENT_ONE = 2048  # 11 bits


def keep_ratio_size(size_hw: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size of the same aspect ratio inside of a scale.

    Args:
        size_hw: (height, width) of the picture in pixels.
        scale: limits of the two sides in pixels; the larger one is for the longer side of the picture.

    Returns:
        (height, width), each rounded to the nearest pixel and at least 1.

    Example:
        >>> keep_ratio_size((427, 640), (2048, 512))
        (512, 767)
    """
    height, width = size_hw
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize_bilinear(picture: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize a picture by bilinear interpolation without antialiasing.

    Args:
        picture: (H, W, 3) uint8.
        size_hw: (height, width) of the result in pixels, each at least 1.

    Returns:
        (height, width, 3) uint8, equal to OpenCV's `INTER_LINEAR` bit for bit; the given tensor if the size is equal.

    Raises:
        ValueError: the picture is not (H, W, 3) uint8, or a side is below 1.

    Example:
        >>> ramp = torch.tensor([0, 100], dtype=torch.uint8).reshape(1, 2, 1).expand(1, 2, 3)
        >>> resize_bilinear(ramp, (1, 4))[0, :, 0].tolist()
        [0, 25, 75, 100]
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != torch.uint8:
        raise ValueError(f"expected an (H, W, 3) uint8 picture, given {tuple(picture.shape)} {picture.dtype}")
    if min(size_hw) < 1:
        raise ValueError(f"each side must be at least 1 pixel, given {size_hw}")
    height, width = picture.shape[:2]
    if (height, width) == tuple(size_hw):
        return picture
    if (height, width) == (2 * size_hw[0], 2 * size_hw[1]):  # OpenCV averages blocks of four instead
        blocks = picture.to(torch.int32).unflatten(1, (-1, 2)).unflatten(0, (-1, 2)).sum(dim=(1, 3))
        return ((blocks + 2) >> 2).to(torch.uint8)
    left, right, across = _taps(size_hw[1], width, is_column=True)
    # (H, width', 3) with 19 bits, cut to 15; the rows then add up to 8 bits and two more for rounding.
    columns = torch.index_select(picture, 1, left).to(torch.int32).mul_(COEFFICIENT_ONE - across[:, None])
    columns += torch.index_select(picture, 1, right).to(torch.int32).mul_(across[:, None])
    columns >>= 4
    above, below, down = _taps(size_hw[0], height, is_column=False)
    rows = torch.index_select(columns, 0, above).mul_(COEFFICIENT_ONE - down[:, None, None]) >> 16
    rows += torch.index_select(columns, 0, below).mul_(down[:, None, None]) >> 16
    return ((rows + 2) >> 2).to(torch.uint8)


def _taps(new: int, old: int, *, is_column: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return both source indices of every new pixel and the integer coefficient of the second one."""
    position = ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5).float()
    first = position.floor()
    share = position - first
    if is_column:  # at the left and right edge OpenCV clamps the position, at the top and bottom the index
        outside = (first < 0) | (first >= old - 1)
        share = torch.where(outside, torch.zeros_like(share), share)
    low = first.long()
    coefficient = (share * COEFFICIENT_ONE).round().to(torch.int32)
    return low.clamp(0, old - 1), (low + 1).clamp(0, old - 1), coefficient
