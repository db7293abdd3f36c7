"""ms_deform_attn in pure torch: every device and dtype, differentiable; what the other backends are compared with.

Shapes: N images, S pixels of all levels, M heads, D channels of a head, L levels, Q queries, P points of a level.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops.deform_attn.levels import Levels
from internimage.ops.deform_conv_v3.reference import missing_reason as missing_reason
from internimage.ops.sampling import compute_dtype, sample, sample_backward


def forward(value: Tensor, locations: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """(N, Q, M*D): grid_sample for every level, then the weighted sum over levels and points."""
    n, queries, heads = locations.shape[:3]
    if n == 0 or queries == 0:
        return locations.new_zeros(n, queries, heads * value.shape[3]) + 0 * (value.sum() + weights.sum())
    shares = _shares(weights, levels, compute_dtype(value.dtype))  # (N*M, 1, Q, L*P)
    samples = [sample(maps, grid) for maps, grid in _level_inputs(value, locations, levels)]  # (N*M, D, Q, P) each
    out = (torch.cat(samples, dim=-1) * shares).sum(-1)  # (N*M, D, Q)
    return out.view(n, -1, queries).transpose(1, 2).contiguous().to(value.dtype)


def backward(
    grad: Tensor, value: Tensor, locations: Tensor, weights: Tensor, levels: Levels
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `forward`, written out so that they do not need autograd to record the forward pass."""
    n, queries, heads, _, points, _ = locations.shape
    if n == 0 or queries == 0:
        return torch.zeros_like(value), torch.zeros_like(locations), torch.zeros_like(weights)
    shares = _shares(weights, levels, compute_dtype(value.dtype))
    upstream = grad.to(shares.dtype).view(n, queries, heads, -1).permute(0, 2, 3, 1)
    upstream = upstream.reshape(n * heads, -1, queries, 1)  # (N*M, D, Q, 1)
    grad_values, grad_grids, grad_shares = [], [], []
    for index, (maps, grid) in enumerate(_level_inputs(value, locations, levels)):
        share = shares[..., index * points : (index + 1) * points]
        grad_shares.append((sample(maps, grid) * upstream).sum(1))  # (N*M, Q, P)
        grad_maps, grad_grid = sample_backward(upstream * share, maps, grid)
        grad_values.append(grad_maps.flatten(2))  # (N*M, D, H*W)
        size = grid.new_tensor(levels.shapes[index][::-1])
        grad_grids.append(grad_grid * (2.0 if levels.normalized else 2.0 / size))
    grad_share = torch.cat(grad_shares, dim=-1)  # (N*M, Q, L*P)
    if levels.softmax:
        share = shares.squeeze(1)
        grad_share = share * (grad_share - (grad_share * share).sum(-1, keepdim=True))
    grad_location = torch.stack(grad_grids, dim=2)  # (N*M, Q, L, P, 2)
    grad_value = torch.cat(grad_values, dim=-1).view(n, heads, -1, value.shape[1])
    return (
        grad_value.permute(0, 3, 1, 2).to(value.dtype).contiguous(),
        grad_location.unflatten(0, (n, heads)).transpose(1, 2).to(locations.dtype).contiguous(),
        grad_share.unflatten(0, (n, heads)).transpose(1, 2).reshape(weights.shape).to(weights.dtype),
    )


def _shares(weights: Tensor, levels: Levels, dtype: torch.dtype) -> Tensor:
    """Weights of the points, (N*M, 1, Q, L*P)."""
    flat = weights.to(dtype).flatten(3)  # (N, Q, M, L*P)
    if levels.softmax:
        flat = flat.softmax(-1)
    return flat.transpose(1, 2).flatten(0, 1).unsqueeze(1)


def _level_inputs(value: Tensor, locations: Tensor, levels: Levels) -> list[tuple[Tensor, Tensor]]:
    """For every level, maps (N*M, D, H, W) and the grid (N*M, Q, P, 2) that grid_sample wants."""
    dtype = compute_dtype(value.dtype)
    n, _, heads, channels = value.shape
    inputs = []
    by_level = value.to(dtype).split([height * width for height, width in levels.shapes], dim=1)
    for index, (height, width) in enumerate(levels.shapes):
        maps = by_level[index].permute(0, 2, 3, 1).reshape(n * heads, channels, height, width)
        place = locations[:, :, :, index].to(dtype)  # (N, Q, M, P, 2)
        if not levels.normalized:
            place = place / place.new_tensor((width, height))
        inputs.append((maps, (2.0 * place - 1.0).transpose(1, 2).flatten(0, 1)))
    return inputs
