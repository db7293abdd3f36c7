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
    wavelength = _wavelengths(channels // 2, temperature, device)

    def encode(length: int) -> Tensor:
        steps = torch.arange(1, length + 1, device=device, dtype=torch.float32)
        phase = (steps / (length + EPS) * (2 * math.pi))[:, None] / wavelength
        return _sines(phase)  # (length, C / 2)

    rows = encode(height)[:, None].expand(-1, width, -1)
    columns = encode(width)[None].expand(height, -1, -1)
    return torch.cat((rows, columns), dim=2).flatten(0, 1)


def padded_sine_position(valid: Tensor, channels: int, *, temperature: float = 10000.0) -> Tensor:
    """Return the sine encoding of the cells of padded maps, relative to the part that is no padding.

    Args:
        valid: (N, H, W) bool, False where a cell is padding.
        channels: C, a multiple of 4; the first half encodes the row, the second the column.
        temperature: ratio between the longest and the shortest wave.

    Returns:
        (N, H, W, C) float32; equal to `sine_position` where nothing is padded.

    Source: DETR, appendix A.4, arXiv 2005.12872.
    """
    wavelength = _wavelengths(channels // 2, temperature, valid.device)
    parts: list[Tensor] = []
    for axis in (1, 2):
        steps = valid.cumsum(axis, dtype=torch.float32)
        phase = (steps / (steps.narrow(axis, -1, 1) + EPS) * (2 * math.pi))[..., None] / wavelength
        parts.append(_sines(phase))
    return torch.cat(parts, dim=-1)


def box_position(boxes: Tensor, channels: int, *, temperature: float = 10000.0) -> Tensor:
    """Return the sine encoding of boxes.

    Args:
        boxes: (..., 4) center x, center y, width, height, 0..1.
        channels: C, a multiple of 8; its quarters encode center y, center x, width and height.
        temperature: ratio between the longest and the shortest wave.

    Returns:
        (..., C) float32.

    Source: DAB-DETR, section 4.2, arXiv 2201.12329.
    """
    wavelength = _wavelengths(channels // 4, temperature, boxes.device)
    phase = (boxes.float()[..., [1, 0, 2, 3]] * (2 * math.pi))[..., None] / wavelength  # (..., 4, C / 4)
    return _sines(phase).flatten(-2)


def _wavelengths(count: int, temperature: float, device: torch.device | str) -> Tensor:
    """Return the (count,) lengths of waves, each twice: for a sine and a cosine."""
    return temperature ** (2 * (torch.arange(count, device=device, dtype=torch.float32) // 2) / count)


def _sines(phase: Tensor) -> Tensor:
    """Return sines and cosines of (..., C) phases in turns."""
    return torch.stack((phase[..., 0::2].sin(), phase[..., 1::2].cos()), dim=-1).flatten(-2)
