"""Averages over the cells of regions (RoIAlign) from channels-last maps through the compiled attention kernel.

An average of bilinear samples is what `ms_deform_attn` computes for one head and one level. Regions with the same grid
of samples go together: there are few different grids, however many regions.

Shape legend: N images, C channels, H W map, R regions, S cells of a side, P samples of a cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops.deform_attn import ms_deform_attn

# Samples worked on at once: their places and weights take 12 bytes each.
CHUNK_SAMPLES = 2**21


def average_regions(x: Tensor, rois: Tensor, side: int, scale: float) -> Tensor:
    """Return what `torchvision.ops.roi_align` does with `sampling_ratio=-1, aligned=True`, to rounding.

    Args:
        x: (N, C, H, W) float32 map, best channels-last in memory; no gradients.
        rois: (R, 5) number of the picture, then corners in pixels.
        side: S.
        scale: cells of the map for a pixel.

    Returns:
        (R, C, S, S), channels-last in memory; zero for regions without extent.

    Example:
        >>> average_regions(torch.ones(1, 2, 8, 8), torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]]), 2, 1.0).shape
        torch.Size([1, 2, 2, 2])
    """
    n, channels, height, width = x.shape
    values = x.permute(0, 2, 3, 1).reshape(n, height * width, 1, channels)
    low = rois[:, 1:3] * scale - 0.5
    size = rois[:, 3:] * scale - 0.5 - low  # (R, 2) width, height in cells
    grid = (size / side).ceil().clamp(min=0).long()  # samples of a cell along x and y
    out = x.new_zeros(len(rois), side * side, channels)
    kinds, kind = torch.cat([rois[:, :1].long(), grid], dim=1).unique(dim=0, return_inverse=True)
    members = kind.argsort().split(kind.bincount(minlength=len(kinds)).tolist())
    for (image, grid_x, grid_y), same in zip(kinds.tolist(), members, strict=True):
        samples = grid_x * grid_y
        if samples == 0:
            continue
        for own in same.split(max(1, CHUNK_SAMPLES // (samples * side * side))):
            xs, is_x_inside = _places(low[own, 0], size[own, 0], side, grid_x, width)  # (R, S, samples along x)
            ys, is_y_inside = _places(low[own, 1], size[own, 1], side, grid_y, height)
            shape = (len(own), side, side, grid_y, grid_x)
            places = torch.stack((xs[:, None, :, None, :].expand(shape), ys[:, :, None, :, None].expand(shape)), dim=-1)
            is_inside = is_y_inside[:, :, None, :, None] & is_x_inside[:, None, :, None, :]
            found = ms_deform_attn(
                values[image : image + 1],
                [(height, width)],
                places.view(1, -1, 1, 1, samples, 2),
                is_inside.to(x.dtype).div_(samples).view(1, -1, 1, 1, samples),
                normalized=False,
            )
            out[own] = found.view(len(own), side * side, channels)
    return out.unflatten(1, (side, side)).permute(0, 3, 1, 2)


def _places(low: Tensor, size: Tensor, side: int, samples: int, limit: int) -> tuple[Tensor, Tensor]:
    """Return where (R,) regions are sampled along an axis, (R, S, samples), and whether that counts.

    Samples up to one cell outside of the map take its border, those further out are zero.
    """
    steps = torch.arange(side * samples, dtype=low.dtype, device=low.device) + 0.5
    place = low[:, None] + steps * (size / (side * samples))[:, None]
    is_inside = (place >= -1) & (place <= limit)
    # A cell's center is at 0 here and at 0.5 in the operator.
    return (
        (place.clamp(0, limit - 1) + 0.5).unflatten(1, (side, samples)),
        is_inside.unflatten(1, (side, samples)),
    )
