"""An oracle for the operators that shares nothing with them: corners picked by index, positions point by point.

It follows the definition's edge rules exactly (cell = floor, so the slope at a pixel line is the right-hand one), which
grid_sample with its normalized coordinates does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

Oracle = Callable[..., Tensor]
Compare = Callable[..., None]


def bilinear(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Samples (B, R, D) of maps (B, H, W, D) at pixel positions (B, R)."""
    batch, height, width, _ = maps.shape
    counts = (x > -1) & (x < width) & (y > -1) & (y < height)
    x, y = torch.where(counts, x, 0.0), torch.where(counts, y, 0.0)
    left, top = x.detach().floor(), y.detach().floor()
    image = torch.arange(batch)[:, None].expand(x.shape)
    total = maps.new_zeros(*x.shape, maps.shape[3])
    for column, share_x in ((left, left + 1 - x), (left + 1, x - left)):
        for row, share_y in ((top, top + 1 - y), (top + 1, y - top)):
            inside = counts & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            at = (image, row.clamp(0, height - 1).long(), column.clamp(0, width - 1).long())
            total = total + torch.where(inside, share_x * share_y, 0.0)[..., None] * maps[at]
    return total


def window_sum(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    offset_scale: float = 1.0,
    remove_center: bool = False,
    softmax: bool = False,
) -> Tensor:
    """The definition of dcnv3: offset (N, Ho, Wo, G, K, 2) and mask (N, Ho, Wo, G, K) of any float dtype."""
    n, height, width, _ = x.shape
    out_h, out_w = offset.shape[1:3]
    maps = x.view(n, height, width, groups, -1).permute(0, 3, 1, 2, 4).flatten(0, 1)  # (N*G, H, W, D)
    shift = offset.permute(0, 3, 1, 2, 4, 5).flatten(0, 1)  # (N*G, Ho, Wo, K, 2)
    weight = (mask.softmax(-1) if softmax else mask).permute(0, 3, 1, 2, 4).flatten(0, 1)
    rows = torch.arange(out_h, dtype=x.dtype)[:, None] * stride[0]
    columns = torch.arange(out_w, dtype=x.dtype)[None, :] * stride[1]
    half_h, half_w = dilation[0] * (kernel_size[0] - 1) // 2, dilation[1] * (kernel_size[1] - 1) // 2
    total = x.new_zeros(n * groups, out_h, out_w, maps.shape[3])
    p = 0
    for a in range(kernel_size[1]):
        for b in range(kernel_size[0]):
            if remove_center and (a, b) == (kernel_size[1] // 2, kernel_size[0] // 2):
                continue
            px = half_w - padding[1] + columns + offset_scale * (a * dilation[1] - half_w + shift[..., p, 0])
            py = half_h - padding[0] + rows + offset_scale * (b * dilation[0] - half_h + shift[..., p, 1])
            total = total + weight[..., p, None] * bilinear(maps, px.flatten(1), py.flatten(1)).view_as(total)
            p += 1
    return total.unflatten(0, (n, groups)).permute(0, 2, 3, 1, 4).flatten(3)


def level_sum(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    *,
    normalized: bool = True,
    softmax: bool = False,
) -> Tensor:
    """The definition of multi-scale deformable attention."""
    n, _, heads, channels = value.shape
    queries, _, _, points = locations.shape[1:5]
    shares = weights.flatten(3).softmax(-1).view(weights.shape) if softmax else weights
    parts = []
    for m in range(heads):
        total = value.new_zeros(n, queries, channels)
        start = 0
        for index, (height, width) in enumerate(shapes):
            maps = value[:, start : start + height * width, m].reshape(n, height, width, channels)
            start += height * width
            for p in range(points):
                x, y = locations[:, :, m, index, p].unbind(-1)
                px = (x * width if normalized else x) - 0.5
                py = (y * height if normalized else y) - 0.5
                total = total + shares[:, :, m, index, p, None] * bilinear(maps, px, py)
        parts.append(total)
    return torch.cat(parts, dim=-1)


@pytest.fixture
def window_oracle() -> Oracle:
    return window_sum


@pytest.fixture
def level_oracle() -> Oracle:
    return level_sum


@pytest.fixture
def compare() -> Compare:
    """Outputs and every gradient of two functions of the same inputs agree; the first runs in float64."""

    def check(
        oracle: Callable[..., Tensor], operator: Callable[..., Tensor], inputs: Sequence[Tensor], tolerance: float
    ) -> None:
        exact = [tensor.double().requires_grad_() for tensor in inputs]
        given = [tensor.clone().requires_grad_() for tensor in inputs]
        want, got = oracle(*exact), operator(*given)
        assert got.dtype == inputs[0].dtype
        upstream = torch.randn(want.shape, dtype=torch.float64).to(got.dtype)
        pairs = [(want.detach(), got.detach())]
        pairs += zip(
            torch.autograd.grad(want, exact, upstream.double()), torch.autograd.grad(got, given, upstream), strict=True
        )
        for index, (a, b) in enumerate(pairs):
            assert a.shape == b.shape
            scale = max(1.0, float(a.abs().max())) if a.numel() else 1.0
            difference = float((a - b.double()).abs().max()) if a.numel() else 0.0
            assert difference <= tolerance * scale, ("output", "gradient 1", "gradient 2", "gradient 3")[index]

    return check
