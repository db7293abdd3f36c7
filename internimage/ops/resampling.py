"""Resizing as two matrix products, for graphs that leave PyTorch: sizes may be free, and every runtime multiplies.

Pixels stay whole numbers of 0..255, as image libraries give them, after each product that they round.

Shape legend: N images, C channels, H W size of the image, h w size of the result.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Kernel = Callable[[Tensor], Tensor]


def triangle(distance: Tensor) -> Tensor:
    """The kernel of bilinear interpolation, of half width 1."""
    return (1 - distance.abs()).clamp(min=0)


def cubic(distance: Tensor) -> Tensor:
    """Pillow's bicubic kernel (a = -0.5), of half width 2."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def scalar(value: int | torch.SymInt, like: Tensor) -> Tensor:
    """Return a size as a tensor () of int64: arithmetic on it is part of the graph and ties it to no size."""
    return torch.full((), value, dtype=torch.int64, device=like.device)


def antialiased(start: Tensor, count: int, step: Tensor, length: int | torch.SymInt, kernel: Kernel) -> Tensor:
    """Return the (count, length) weights by which Pillow makes pixels of old ones, along one axis.

    Args:
        start: () index of the first new pixel.
        count: number of new pixels.
        step: () float, old pixels for a new one.
        length: number of old pixels.
        kernel: it is widened where pixels are joined.

    Example:
        >>> antialiased(torch.tensor(0), 2, torch.tensor(2.0), 4, triangle)[0].tolist()
        [0.4285714328289032, 0.4285714328289032, 0.1428571492433548, 0.0]
    """
    device = step.device
    center = (torch.arange(count, device=device, dtype=torch.float32) + start + 0.5) * step
    old = torch.arange(length, device=device, dtype=torch.float32) + 0.5
    weights = kernel((old[None] - center[:, None]) / step.clamp(min=1))
    return weights / weights.sum(dim=1, keepdim=True)


def interpolated(count: int, step: Tensor, length: int | torch.SymInt) -> Tensor:
    """Return the (count, length) weights by which OpenCV makes pixels of two old ones, along one axis.

    Args:
        count: number of new pixels; those behind the image repeat its border.
        step: () float, old pixels for a new one.
        length: number of old pixels.

    Example:
        >>> interpolated(4, torch.tensor(0.5), 2)[:, 1].tolist()
        [0.0, 0.25, 0.75, 1.0]
    """
    place = (torch.arange(count, device=step.device, dtype=torch.float32) + 0.5) * step - 0.5
    place = torch.minimum(place.clamp(min=0), (scalar(length, step) - 1).float())
    old = torch.arange(length, device=step.device, dtype=torch.float32)
    return triangle(old[None] - place[:, None])


def resample(images: Tensor, rows: Tensor, columns: Tensor, *, rounds_between: bool) -> Tensor:
    """Resize (N, C, H, W) images of 0..255 by weights of rows (h, H) and columns (w, W): (N, C, h, w) whole numbers.

    `rounds_between` is whether the columns are rounded before the rows are summed, as Pillow does.
    """
    wide = images @ columns.T
    if rounds_between:
        wide = _whole(wide)
    return _whole(rows @ wide)


def _whole(values: Tensor) -> Tensor:
    return (values + 0.5).floor().clamp(0, 255)
