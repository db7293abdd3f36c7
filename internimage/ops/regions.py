"""Averages over the cells of regions (RoIAlign): torchvision's, and from channels-last maps the compiled kernel's.

An average of bilinear samples is what `ms_deform_attn` computes for one head and one level. Regions with the same grid
of samples go together: there are few different grids, however many regions.

Shape legend: N images, C channels, H W map, R regions, S cells of a side, P samples of a cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import roi_align

from internimage.ops.deform_attn import kernel_cpp
from internimage.ops.deform_attn.levels import Levels
from internimage.ops.derivatives import is_transformed
from internimage.ops.registration import is_eager

# Samples worked on at once: their places and weights take 12 bytes each.
CHUNK_SAMPLES = 2**21
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def can_average(x: Tensor, *, backend: str = "auto") -> bool:
    """Whether the compiled kernel serves for the map `x`: eager, on a CPU, and not float64."""
    if backend not in ("auto", "cpp") or x.dtype not in DTYPES or not is_eager(x):
        return False
    return kernel_cpp.missing_reason(x.device.type, torch.float32) is None


def average_regions(x: Tensor, rois: Tensor, side: int, scale: float) -> Tensor:
    """Return what `torchvision.ops.roi_align` does with `sampling_ratio=-1, aligned=True`, to rounding.

    Args:
        x: (N, C, H, W) map, best channels-last in memory; summed in float32 whatever its dtype.
        rois: (R, 5) float32 index of the image, then corners in pixels; no gradients.
        side: S.
        scale: cells of the map for a pixel.

    Returns:
        (R, C, S, S) in the dtype of `x`, channels-last in memory; zero for regions without extent.

    Example:
        >>> average_regions(torch.ones(1, 2, 8, 8), torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]]), 2, 1.0).shape
        torch.Size([1, 2, 2, 2])
    """
    values = x.permute(0, 2, 3, 1).float()
    out: Tensor = _Averages.apply(values, rois, side, scale)
    return out.to(x.dtype).unflatten(1, (side, side)).permute(0, 3, 1, 2)


def align_regions(x: Tensor, rois: Tensor, side: int, scale: float) -> Tensor:
    """Return `torchvision.ops.roi_align` with `sampling_ratio=-1, aligned=True`, with all derivatives in `x`.

    Counts of samples follow the size of each region, as in the published models.

    Args:
        x: (N, C, H, W) map.
        rois: (R, 5) index of the image, then corners in pixels; no gradients.
        side: S.
        scale: cells of the map for a pixel.

    Returns:
        (R, C, S, S) in the dtype of `x`.

    Example:
        >>> align_regions(torch.ones(1, 2, 8, 8), torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]]), 2, 1.0).shape
        torch.Size([1, 2, 2, 2])
    """
    rois = rois.to(x.dtype)
    if is_transformed():  # torchvision's has no forward-mode derivative, and says nothing
        return _Aligned.apply(x, rois, side, scale)
    return roi_align(x, rois, side, scale, sampling_ratio=-1, aligned=True)


class _Aligned(torch.autograd.Function):
    """`roi_align`, which is linear in the map: its tangent is `roi_align` of the tangent."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, rois: Tensor, side: int, scale: float) -> Tensor:
        return roi_align(x, rois, side, scale, sampling_ratio=-1, aligned=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, float], output: Tensor) -> None:
        x, rois, ctx.side, ctx.scale = inputs
        ctx.save_for_backward(rois)
        ctx.save_for_forward(rois)
        ctx.shape = x.shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]  # torch: *args
        return _Spread.apply(grad, *ctx.saved_tensors, ctx.scale, *ctx.shape), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:  # type: ignore[override]  # torch: *args
        return _Aligned.apply(tangent, *ctx.saved_tensors, ctx.side, ctx.scale)


class _Spread(torch.autograd.Function):
    """The gradient of the map for one of the averages: linear too, and the transpose of `_Aligned`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, rois: Tensor, scale: float, *shape: int) -> Tensor:
        side = grad.shape[-1]
        return torch.ops.torchvision._roi_align_backward(grad, rois, scale, side, side, *shape, -1, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad, rois, ctx.scale, *ctx.shape = inputs
        ctx.save_for_backward(rois)
        ctx.save_for_forward(rois)
        ctx.side = grad.shape[-1]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # torch: *args
        return _Aligned.apply(upstream, *ctx.saved_tensors, ctx.side, ctx.scale), *(None,) * 6

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:  # type: ignore[override]  # torch: *args
        return _Spread.apply(tangent, *ctx.saved_tensors, ctx.scale, *ctx.shape)


class _Averages(torch.autograd.Function):
    """(R, S*S, C) averages of a (N, H, W, C) float32 map."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rois: Tensor, side: int, scale: float) -> Tensor:
        n, height, width, channels = values.shape
        flat = values.reshape(n, height * width, 1, channels)
        out = values.new_zeros(len(rois), side * side, channels)
        for part in _parts(rois, side, scale, (height, width)):
            found = kernel_cpp.forward(flat[part.image, None], part.places, part.shares, _levels(height, width))
            out[part.members] = found.view(-1, side * side, channels)
        ctx.save_for_backward(rois)
        ctx.side, ctx.scale, ctx.shape = side, scale, values.shape
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]  # torch: *args
        n, height, width, channels = ctx.shape
        if torch.is_grad_enabled() or is_transformed():
            cells = grad.unflatten(1, (ctx.side, ctx.side)).permute(0, 3, 1, 2)
            spread = _Spread.apply(cells, *ctx.saved_tensors, ctx.scale, n, channels, height, width)
            return spread.permute(0, 2, 3, 1), None, None, None
        total = grad.new_zeros(n, height * width, 1, channels)
        for part in _parts(ctx.saved_tensors[0], ctx.side, ctx.scale, (height, width)):
            own = grad[part.members].reshape(1, -1, channels)
            total[part.image] += kernel_cpp.value_gradient(own, part.places, part.shares, _levels(height, width))[0]
        return total.view(ctx.shape), None, None, None


def _levels(height: int, width: int) -> Levels:
    return Levels((height, width), normalized=False, softmax=False)


class _Part(NamedTuple):
    """Regions of one image with the same number of samples in their cells."""

    image: int
    members: Tensor  # (R,) int64
    places: Tensor  # (1, R*S*S, 1, 1, P, 2)
    shares: Tensor  # (1, R*S*S, 1, 1, P)


def _parts(rois: Tensor, side: int, scale: float, size_hw: tuple[int, int]) -> Iterator[_Part]:
    """Sort the regions by image and grid of samples, and lay out what the operator reads of them."""
    low = rois[:, 1:3] * scale - 0.5
    size = rois[:, 3:] * scale - 0.5 - low  # (R, 2) width, height in cells
    grid = (size / side).ceil().clamp(min=0).long()  # samples of a cell along x and y
    kinds, kind = torch.cat([rois[:, :1].long(), grid], dim=1).unique(dim=0, return_inverse=True)
    members = kind.argsort().split(kind.bincount(minlength=len(kinds)).tolist())
    for (image, grid_x, grid_y), same in zip(kinds.tolist(), members, strict=True):
        samples = grid_x * grid_y
        if samples == 0:
            continue
        for own in same.split(max(1, CHUNK_SAMPLES // (samples * side * side))):
            xs, is_x_inside = _places(low[own, 0], size[own, 0], side, grid_x, size_hw[1])  # (R, S, samples along x)
            ys, is_y_inside = _places(low[own, 1], size[own, 1], side, grid_y, size_hw[0])
            shape = (len(own), side, side, grid_y, grid_x)
            places = torch.stack((xs[:, None, :, None, :].expand(shape), ys[:, :, None, :, None].expand(shape)), dim=-1)
            is_inside = is_y_inside[:, :, None, :, None] & is_x_inside[:, None, :, None, :]
            shares = is_inside.to(rois.dtype).div_(samples)
            yield _Part(image, own, places.view(1, -1, 1, 1, samples, 2), shares.view(1, -1, 1, 1, samples))


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
