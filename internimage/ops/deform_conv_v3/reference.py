"""dcnv3 in pure torch: every device and dtype, differentiable; what the other backends are compared with.

Shapes: N images, H W map, C channels, G groups, D = C / G, Ho Wo output map, K points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops.bilinear import Position, normalize, sample, sample_backward, weighted_sum
from internimage.ops.sampling import Window, compute_dtype, window_positions


def missing_reason(device: str, dtype: torch.dtype) -> str | None:
    """Always None: the reference runs everywhere."""
    return None


def forward(x: Tensor, offset: Tensor, mask: Tensor, window: Window) -> Tensor:
    """(N, Ho, Wo, C): grid_sample for every group, then the weighted sum over K. This is what exporters see."""
    maps, at, weight = _as_groups(x, offset, mask, window)
    grid = normalize(at.whole + at.rest, (x.shape[1], x.shape[2]))
    out = (sample(maps, grid) * weight).sum(-1)  # (N*G, D, Ho*Wo)
    n, out_h, out_w, _ = offset.shape
    return out.reshape(n, x.shape[3], out_h, out_w).permute(0, 2, 3, 1).contiguous().to(x.dtype)


def backward(grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor, window: Window) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `forward`, written out so that they do not need autograd to record the forward pass."""
    maps, at, weight = _as_groups(x, offset, mask, window)
    n, out_h, out_w, _ = offset.shape
    groups, k, width = window.groups, window.points, maps.shape[1]
    upstream = grad.to(maps.dtype).reshape(n, out_h * out_w, groups, width).permute(0, 2, 3, 1)
    upstream = upstream.reshape(n * groups, width, out_h * out_w, 1)  # (N*G, D, Ho*Wo, 1)
    values, grad_maps, grad_place = sample_backward(upstream * weight, maps, at)
    grad_weight = (values * upstream).sum(1)  # (N*G, Ho*Wo, K)
    if window.softmax:
        share = weight.squeeze(1)
        grad_weight = share * (grad_weight - (grad_weight * share).sum(-1, keepdim=True))
    grad_offset = grad_place * window.offset_scale  # (N*G, Ho*Wo, K, 2)
    grad_x = grad_maps.reshape(n, x.shape[3], *x.shape[1:3]).permute(0, 2, 3, 1)

    def per_pixel(t: Tensor, values: int) -> Tensor:
        by_group = t.reshape(n, groups, out_h, out_w, values).permute(0, 2, 3, 1, 4)
        return by_group.reshape(n, out_h, out_w, groups * values)

    return (
        grad_x.to(x.dtype).contiguous(),
        per_pixel(grad_offset, 2 * k).to(offset.dtype),
        per_pixel(grad_weight, k).to(mask.dtype),
    )


def exact(x: Tensor, offset: Tensor, mask: Tensor, window: Window) -> Tensor:
    """What `forward` computes, pixel by pixel: slower, but every derivative of any order in any mode passes."""
    dtype = compute_dtype(x.dtype)
    n, height, width, channels = x.shape
    groups = window.groups
    offset, mask = _by_group(offset, mask, window)
    weight = mask.to(dtype).softmax(-1) if window.softmax else mask.to(dtype)
    rows = x.to(dtype).reshape(n * height * width, groups, channels // groups)
    first = torch.arange(n, device=x.device).reshape(n, 1, 1, 1, 1) * (height * width)
    out = weighted_sum(rows, window_positions(offset, window, dtype), weight, (height, width), first)
    return out.flatten(3).to(x.dtype)


def _by_group(offset: Tensor, mask: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Offsets (N, Ho, Wo, G, K, 2) and weights (N, Ho, Wo, G, K)."""
    groups, k = window.groups, window.points
    return offset.unflatten(-1, (groups, k, 2)), mask.unflatten(-1, (groups, k))


def _as_groups(x: Tensor, offset: Tensor, mask: Tensor, window: Window) -> tuple[Tensor, Position, Tensor]:
    """Maps (N*G, D, H, W), positions (N*G, Ho*Wo, K, 2) and weights (N*G, 1, Ho*Wo, K)."""
    dtype = compute_dtype(x.dtype)
    n, height, width, channels = x.shape
    _, out_h, out_w, _ = offset.shape
    groups, k = window.groups, window.points
    maps = x.to(dtype).permute(0, 3, 1, 2).reshape(n * groups, channels // groups, height, width)
    offset, mask = _by_group(offset, mask, window)
    at = window_positions(offset, window, dtype)

    def by_map(t: Tensor) -> Tensor:
        return t.expand(n, out_h, out_w, groups, k, 2).permute(0, 3, 1, 2, 4, 5).reshape(-1, out_h * out_w, k, 2)

    weight = mask.to(dtype)
    if window.softmax:
        weight = weight.softmax(-1)
    weight = weight.permute(0, 3, 1, 2, 4).reshape(n * groups, 1, out_h * out_w, k)
    return maps, Position(*map(by_map, at)), weight
