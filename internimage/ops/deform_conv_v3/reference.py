"""dcnv3 in pure torch: every device and dtype, differentiable; what the other backends are compared with.

Shapes: N images, H W map, C channels, G groups, D = C / G, Ho Wo output map, K points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops.sampling import (
    Window,
    compute_dtype,
    normalize_positions,
    sample,
    sample_backward,
    window_positions,
)


def missing_reason(device: str, dtype: torch.dtype) -> str | None:
    """Always None: the reference runs everywhere."""
    return None


def forward(x: Tensor, offset: Tensor, mask: Tensor, window: Window) -> Tensor:
    """(N, Ho, Wo, C): grid_sample for every group, then the weighted sum over K."""
    if x.shape[0] == 0:
        out_hw = offset.shape[1:3]
        return x.sum((1, 2))[:, None, None].expand(0, *out_hw, -1) + 0 * (offset.sum() + mask.sum())
    maps, grid, weight = _as_groups(x, offset, mask, window)
    out = (sample(maps, grid) * weight).sum(-1)  # (N*G, D, Ho*Wo)
    return _as_map(out, offset).to(x.dtype)


def backward(grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor, window: Window) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `forward`, written out so that they do not need autograd to record the forward pass."""
    if x.shape[0] == 0:
        return torch.zeros_like(x), torch.zeros_like(offset), torch.zeros_like(mask)
    maps, grid, weight = _as_groups(x, offset, mask, window)
    n, out_h, out_w, _ = offset.shape
    groups, k = window.groups, window.points
    upstream = grad.to(maps.dtype).view(n, out_h * out_w, groups, -1).permute(0, 2, 3, 1)
    upstream = upstream.reshape(n * groups, -1, out_h * out_w, 1)  # (N*G, D, Ho*Wo, 1)
    grad_weight = (sample(maps, grid) * upstream).sum(1)  # (N*G, Ho*Wo, K)
    grad_maps, grad_grid = sample_backward(upstream * weight, maps, grid)
    if window.softmax:
        share = weight.squeeze(1)
        grad_weight = share * (grad_weight - (grad_weight * share).sum(-1, keepdim=True))
    size = torch.tensor(x.shape[2:0:-1], dtype=grid.dtype, device=grid.device)  # (W, H)
    grad_offset = grad_grid * (2.0 * window.offset_scale / size)  # (N*G, Ho*Wo, K, 2)
    grad_x = grad_maps.view(n, -1, *x.shape[1:3]).permute(0, 2, 3, 1)

    def per_pixel(t: Tensor) -> Tensor:
        return t.view(n, groups, out_h, out_w, -1).permute(0, 2, 3, 1, 4).reshape(n, out_h, out_w, -1)

    return (
        grad_x.to(x.dtype).contiguous(),
        per_pixel(grad_offset.flatten(2)).to(offset.dtype),
        per_pixel(grad_weight.view(n * groups, out_h * out_w, k)).to(mask.dtype),
    )


def _as_groups(x: Tensor, offset: Tensor, mask: Tensor, window: Window) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (N*G, D, H, W), sampling grid (N*G, Ho*Wo, K, 2) and weights (N*G, 1, Ho*Wo, K)."""
    dtype = compute_dtype(x.dtype)
    n, height, width, channels = x.shape
    _, out_h, out_w, _ = offset.shape
    groups, k = window.groups, window.points
    maps = x.to(dtype).permute(0, 3, 1, 2).reshape(n * groups, channels // groups, height, width)
    positions = window_positions(offset.view(n, out_h, out_w, groups, k, 2), window, dtype)
    grid = normalize_positions(positions, height, width).permute(0, 3, 1, 2, 4, 5)
    grid = grid.reshape(n * groups, out_h * out_w, k, 2)
    weight = mask.to(dtype).view(n, out_h * out_w, groups, k)
    if window.softmax:
        weight = weight.softmax(-1)
    weight = weight.transpose(1, 2).reshape(n * groups, 1, out_h * out_w, k)
    return maps, grid, weight


def _as_map(out: Tensor, offset: Tensor) -> Tensor:
    """(N*G, D, Ho*Wo) as (N, Ho, Wo, C)."""
    n, out_h, out_w, _ = offset.shape
    return out.view(n, -1, out_h, out_w).permute(0, 2, 3, 1).contiguous()
