"""Anchors: the boxes that the region proposal network starts from.

Shape legend: A anchors of a cell, H W map size in cells, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def base_anchors(stride: int, scale: float, ratios: Sequence[float]) -> Tensor:
    """Return the (A, 4) corners of the anchors around the origin.

    Args:
        stride: pixels for a cell.
        scale: side of a square anchor in cells.
        ratios: height over width of each anchor; all have the same area.

    Example:
        >>> base_anchors(4, 8.0, [1.0]).tolist()
        [[-16.0, -16.0, 16.0, 16.0]]
    """
    root = torch.tensor(ratios, dtype=torch.float32).sqrt()
    half = 0.5 * stride * torch.stack([scale / root, scale * root], dim=1)  # (A, 2) half width, half height
    return torch.cat([-half, half], dim=1)


def grid_anchors(size_hw: tuple[int, int], stride: int, base: Tensor) -> Tensor:
    """Return the (H * W * A, 4) anchors of a map, row by row: `base` (A, 4) at the upper left corner of each cell."""
    y, x = (torch.arange(side, device=base.device, dtype=base.dtype) * stride for side in size_hw)
    y, x = torch.meshgrid(y, x, indexing="ij")
    shift = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (shift + base).reshape(-1, 4)


def inside_flags(
    anchors: Tensor, size_hw: tuple[int, int], stride: int, valid_hw: Tensor, padded_hw: Tensor, allowed_border: int
) -> Tensor:
    """Return (N, H * W * A) bool: which anchors (H * W * A, 4) of a level may serve in training.

    `valid_hw` are (N, 2) sizes of the images before padding, `padded_hw` when each is padded on its own: cells beyond
    belong to the batch's padding. An anchor may leave its image by `allowed_border` pixels, -1 for any distance.
    """
    cells = (padded_hw + stride - 1) // stride  # (N, 2)
    y, x = (torch.arange(side, device=anchors.device) for side in size_hw)
    flags = (y[None, :, None] < cells[:, 0, None, None]) & (x[None, None, :] < cells[:, 1, None, None])  # (N, H, W)
    flags = flags.flatten(1).repeat_interleave(len(anchors) // (size_hw[0] * size_hw[1]), dim=1)
    if allowed_border < 0:
        return flags
    limit = (valid_hw.flip(-1) + allowed_border).to(anchors.dtype)  # (N, 2) width, height
    return flags & (anchors[:, :2] >= -allowed_border).all(-1) & (anchors[:, 2:] < limit[:, None]).all(-1)
