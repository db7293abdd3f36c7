"""Sine encodings of places in a map.

Shape legend: N images, H W map, C channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = 1e-6


def sine_position(
    size_hw: tuple[int, int],
    channels: int,
    *,
    temperature: float = 10000.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the sine encoding of every cell of a map without padding.

    Args:
        size_hw: (height, width) of the map.
        channels: C, a multiple of 4; the first half encodes the row, the second the column.
        temperature: ratio between the longest and the shortest wave.
        device: where the encoding goes.

    Returns:
        (H * W, C) float32, row by row.

    Source: DETR, appendix A.4, arXiv 2005.12872.

    Example:
        >>> sine_position((2, 3), 8).shape
        torch.Size([6, 8])
    """
    height, width = size_hw
    half = channels // 2
    exponent = 2 * (torch.arange(half, device=device, dtype=torch.float32) // 2) / half
    wavelength = temperature**exponent  # (C / 2,)

    def encode(length: int) -> Tensor:
        steps = torch.arange(1, length + 1, device=device, dtype=torch.float32)
        phase = (steps / (length + EPS) * (2 * math.pi))[:, None] / wavelength
        return torch.stack((phase[:, 0::2].sin(), phase[:, 1::2].cos()), dim=2).flatten(1)  # (length, C / 2)

    rows = encode(height)[:, None].expand(-1, width, -1)
    columns = encode(width)[None].expand(height, -1, -1)
    return torch.cat((rows, columns), dim=2).flatten(0, 1)
