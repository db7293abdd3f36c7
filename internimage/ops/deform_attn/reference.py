"""ms_deform_attn in pure torch: every device and dtype, differentiable; what the other backends are compared with.

Shapes: N images, S pixels of all levels, M heads, D channels of a head, L levels, Q queries, P points of a level.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops.bilinear import Position, normalize, sample, sample_backward, weighted_sum
from internimage.ops.deform_attn.levels import Levels
from internimage.ops.deform_conv_v3.reference import missing_reason as missing_reason
from internimage.ops.sampling import compute_dtype


def forward(value: Tensor, locations: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """(N, Q, M*D): grid_sample for every level, then the weighted sum over levels and points."""
    n, queries, heads = locations.shape[:3]
    shares = _by_map(_shares(weights, levels, compute_dtype(value.dtype)).flatten(3)).unsqueeze(1)  # (N*M, 1, Q, L*P)
    samples = []
    for index, maps in enumerate(_level_maps(value, levels)):
        place = _by_map(locations[:, :, :, index].to(maps.dtype))  # (N*M, Q, P, 2)
        grid = 2.0 * place - 1.0 if levels.normalized else normalize(place - 0.5, levels.shapes[index])
        samples.append(sample(maps, grid))  # (N*M, D, Q, P)
    out = (torch.cat(samples, dim=-1) * shares).sum(-1)  # (N*M, D, Q)
    return out.reshape(n, heads * value.shape[3], queries).transpose(1, 2).contiguous().to(value.dtype)


def backward(
    grad: Tensor, value: Tensor, locations: Tensor, weights: Tensor, levels: Levels
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `forward`, written out so that they do not need autograd to record the forward pass."""
    n, queries, heads, _, points, _ = locations.shape
    channels = value.shape[3]
    shares = _by_map(_shares(weights, levels, compute_dtype(value.dtype)).flatten(3)).unsqueeze(1)
    upstream = grad.to(shares.dtype).reshape(n, queries, heads, channels).permute(0, 2, 3, 1)
    upstream = upstream.reshape(n * heads, channels, queries, 1)  # (N*M, D, Q, 1)
    grad_values, grad_places, grad_shares = [], [], []
    for index, maps in enumerate(_level_maps(value, levels)):
        place = _by_map(locations[:, :, :, index].to(maps.dtype))  # (N*M, Q, P, 2)
        at = _positions(place, levels.shapes[index], levels)
        share = shares[..., index * points : (index + 1) * points]
        values, grad_maps, grad_place = sample_backward(upstream * share, maps, at)
        grad_shares.append((values * upstream).sum(1))  # (N*M, Q, P)
        grad_values.append(grad_maps.flatten(2))  # (N*M, D, H*W)
        scale = levels.shapes[index][::-1] if levels.normalized else (1, 1)
        grad_places.append(grad_place * torch.tensor(scale, dtype=grad_place.dtype, device=grad_place.device))
    grad_share = torch.cat(grad_shares, dim=-1)  # (N*M, Q, L*P)
    if levels.softmax:
        share = shares.squeeze(1)
        grad_share = share * (grad_share - (grad_share * share).sum(-1, keepdim=True))
    grad_location = torch.stack(grad_places, dim=2)  # (N*M, Q, L, P, 2)
    grad_value = torch.cat(grad_values, dim=-1).reshape(n, heads, channels, value.shape[1])
    return (
        grad_value.permute(0, 3, 1, 2).to(value.dtype).contiguous(),
        grad_location.unflatten(0, (n, heads)).transpose(1, 2).to(locations.dtype).contiguous(),
        grad_share.unflatten(0, (n, heads)).transpose(1, 2).reshape(weights.shape).to(weights.dtype),
    )


def exact(value: Tensor, locations: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """What `forward` computes, pixel by pixel: slower, but every derivative of any order in any mode passes."""
    dtype = compute_dtype(value.dtype)
    n, pixels, heads, channels = value.shape
    shares = _shares(weights, levels, dtype)
    rows = value.to(dtype).reshape(n * pixels, heads, channels)
    first = torch.arange(n, device=value.device).reshape(n, 1, 1, 1) * pixels
    out = rows.new_zeros(())
    for index, size in enumerate(levels.shapes):
        at = _positions(locations[:, :, :, index].to(dtype), size, levels)
        out = out + weighted_sum(rows, at, shares[:, :, :, index], size, first)  # (N, Q, M, D)
        first = first + size[0] * size[1]
    return out.flatten(2).to(value.dtype)


def _shares(weights: Tensor, levels: Levels, dtype: torch.dtype) -> Tensor:
    """Weights of the points, (N, Q, M, L, P)."""
    weights = weights.to(dtype)
    return weights.flatten(3).softmax(-1).unflatten(-1, weights.shape[3:]) if levels.softmax else weights


def _by_map(t: Tensor) -> Tensor:
    """(N, Q, M, ...) as (N*M, Q, ...)."""
    return t.transpose(1, 2).flatten(0, 1)


def _positions(locations: Tensor, size_hw: tuple[int, int], levels: Levels) -> Position:
    """Pixel positions (..., 2) in a level of locations (..., 2).

    A new model looks at the centers of cells, where rounding decides on which side of a pixel line a position lies:
    the product of location and side is formed in two exact parts, as the kernels' fused multiply-add does.
    """
    height, width = size_hw if levels.normalized else (1, 1)
    size = torch.tensor((width, height), dtype=locations.dtype, device=locations.device)
    given = locations.detach()
    # Dekker's splitting: the upper half of the bits, whose product with a side is exact.
    scaled = given * (2.0 ** (12 if given.dtype == torch.float32 else 27) + 1)
    upper = scaled - (scaled - given)
    whole = (given * size).round()
    return Position(whole, (upper * size - whole) + (locations - upper) * size - 0.5)


def _level_maps(value: Tensor, levels: Levels) -> list[Tensor]:
    """Maps (N*M, D, H, W) of every level."""
    n, _, heads, channels = value.shape
    by_level = value.to(compute_dtype(value.dtype)).split([height * width for height, width in levels.shapes], dim=1)
    return [
        level.permute(0, 2, 3, 1).reshape(n * heads, channels, *size)
        for level, size in zip(by_level, levels.shapes, strict=True)
    ]
