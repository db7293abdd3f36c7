"""The bilinear rule in pure torch: one form by `grid_sample`, and an exact one that any derivative can pass through.

A point counts if it lies strictly within one pixel around the map; corners outside the map are zero, and the cell of a
position is its floor, so that the slope at a pixel line is the right-hand one.

Shapes: B maps, D channels, H W map, R places with K points each, G maps side by side in memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

OUTSIDE = 3.0  # a normalized position without a corner in any map, as is -3


class Position(NamedTuple):
    """Positions (..., 2) as (x, y) in pixels: a whole number, and the rest of any size and sign, which has a gradient.

    Kept apart, they do not lose the rest's last bits on wide maps.
    """

    whole: Tensor
    rest: Tensor


class _Cells(NamedTuple):
    """Where positions lie in a map."""

    cell: Tensor  # (..., 2) whole number of the first corner, any where the point does not count
    fraction: Tensor  # (..., 2) distance from it, 0 <= f < 1
    counts: Tensor  # (...)


def _cells(at: Position, size_hw: tuple[int, int]) -> _Cells:
    rest = at.rest.detach()
    floor = rest.floor()
    cell, fraction = at.whole + floor, rest - floor
    # In the cell before the map only what lies past its first corner. NaN and infinite positions compare as false.
    counts = ((cell >= 0) | ((cell == -1) & (fraction > 0))) & (cell < _size(rest, size_hw))
    return _Cells(cell, fraction, counts.all(-1))


def normalize(place: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Positions (..., 2) in pixels as grid_sample wants them with align_corners=False: -1..1 over the map's edges."""
    return (2.0 * place + 1.0) / _size(place, size_hw) - 1.0


def sample(maps: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples (B, D, R, K) of maps (B, D, H, W) at normalized positions (B, R, K, 2); zero outside.

    The form that exporters translate. Its slope at a pixel line may be either one, since fractions of the map are
    rounded; `sample_backward` has the right one.
    """
    grid = torch.where(grid > -OUTSIDE, grid, -OUTSIDE).clamp(max=OUTSIDE)  # the first also for NaN
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def sample_backward(grad: Tensor, maps: Tensor, at: Position) -> tuple[Tensor, Tensor, Tensor]:
    """Samples (B, D, R, K), and the gradients of maps and of positions (B, R, K, 2) in pixels for `grad` of them."""
    size_hw = maps.shape[2], maps.shape[3]
    size = _size(maps, size_hw)
    cells = _cells(at, size_hw)
    # On its way through fractions of the map a position moves by up to 1.5 eps of the side: keep it in its cell.
    margin = 2 * torch.finfo(maps.dtype).eps * size
    place = cells.cell + cells.fraction.maximum(margin).minimum(1 - margin)
    grid = torch.where(cells.counts[..., None], normalize(place, size_hw), OUTSIDE)
    values = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    grad_maps, grad_grid = torch.ops.aten.grid_sampler_2d_backward(grad, maps, grid, 0, 0, False, (True, True))
    return values, grad_maps, grad_grid * (2.0 / size)


def _size(like: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(W, H) as a tensor; symbolic sides stay so, of which `torch.tensor` would make constants."""
    if any(isinstance(side, torch.SymInt) for side in size_hw):
        return torch.stack([torch.full((), side, dtype=like.dtype, device=like.device) for side in reversed(size_hw)])
    return torch.tensor((size_hw[1], size_hw[0]), dtype=like.dtype, device=like.device)


def weighted_sum(rows: Tensor, at: Position, weight: Tensor, size_hw: tuple[int, int], first: Tensor) -> Tensor:
    """Sum weighted bilinear samples; every step is an ordinary torch operator with all derivatives, in any mode.

    Args:
        rows: (M, G, D) pixels of all maps, row by row.
        at: (..., G, K, 2) positions.
        weight: (..., G, K).
        size_hw: sides of the maps.
        first: index of each map's first pixel in `rows`, (..., 1, 1).

    Returns:
        (..., G, D) sums over K.
    """
    pixels, groups, channels = rows.shape
    height, width = size_hw
    cells = _cells(at, size_hw)
    cell = torch.where(cells.counts[..., None], cells.cell, 0.0)
    # The rest's distance from its floor, written so that the gradient passes, and not where the point does not count.
    fraction = torch.where(cells.counts[..., None], at.rest - at.rest.detach() + cells.fraction, 0.0)
    (x, y), (high_x, high_y) = cell.long().unbind(-1), fraction.unbind(-1)
    lane = torch.arange(groups, device=rows.device)[:, None]
    flat = F.pad(rows.reshape(pixels * groups, channels), (0, 0, 0, 1))  # the last row stands for all that is outside
    total = rows.new_zeros(())
    for down, share_y in ((0, 1 - high_y), (1, high_y)):
        for right, share_x in ((0, 1 - high_x), (1, high_x)):
            column, row = x + right, y + down
            inside = cells.counts & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = torch.where(inside, (first + row * width + column) * groups + lane, pixels * groups)
            corners = flat.index_select(0, index.flatten()).unflatten(0, index.shape)  # (..., G, K, D)
            total = total + ((weight * share_y * share_x)[..., None, :] @ corners).squeeze(-2)
    return total
