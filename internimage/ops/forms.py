"""Our operators in the words of others: what a traced program turns their nodes into.

Shapes: N images, H W map, C channels, G groups, D = C / G, Ho Wo output map, K points of a window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from internimage.ops.deform_attn import reference as deform_attn
from internimage.ops.deform_attn.levels import Levels
from internimage.ops.deform_conv_v3 import reference as deform_conv_v3
from internimage.ops.deform_conv_v4 import reference as deform_conv_v4
from internimage.ops.sampling import Window, compute_dtype, window_points


def deform_conv(x: Tensor, offset: Tensor, mask: Tensor, window: Window) -> Tensor:
    """`dcnv3` as one `torchvision::deform_conv2d`, which is the DeformConv of ONNX: (N, Ho, Wo, C).

    Its kernel sums the points of a group and mixes no channels: each output channel has the ones of its own in all
    points. Its points go row by row, and so do their offsets (y, x); a point that is left out weighs nothing.
    """
    dtype = compute_dtype(x.dtype)
    n, out_h, out_w, _ = offset.shape
    (kh, kw), groups, width = window.kernel_size, window.groups, x.shape[3] // window.groups
    given = offset.unflatten(-1, (groups, window.points, 2)).to(dtype)
    weight = mask.unflatten(-1, (groups, window.points)).to(dtype)
    if window.softmax:
        weight = weight.softmax(-1)
    number = {point: i for i, point in enumerate(window_points(window))}
    order = [number.get((a, b), 0) for b in range(kh) for a in range(kw)]  # row by row
    index = torch.tensor(order, device=x.device)
    shift = _window_shift(window, dtype).to(x.device)  # (K, 2) as (y, x)
    shifts = window.offset_scale * given.index_select(4, index).flip(-1) + shift
    weights = weight.index_select(4, index)
    if window.remove_center:
        kept = torch.tensor([(a, b) in number for b in range(kh) for a in range(kw)], dtype=dtype, device=x.device)
        weights = weights * kept
    points = kh * kw
    kernel = torch.eye(width, dtype=dtype, device=x.device).repeat(groups, 1)  # (C, D)
    out = deform_conv2d(
        x.to(dtype).permute(0, 3, 1, 2),
        shifts.reshape(n, out_h, out_w, groups * points * 2).permute(0, 3, 1, 2),
        kernel[:, :, None, None].expand(-1, -1, kh, kw).contiguous(),
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
        mask=weights.reshape(n, out_h, out_w, groups * points).permute(0, 3, 1, 2),
    )
    return out.permute(0, 2, 3, 1).contiguous().to(x.dtype)


def _window_shift(window: Window, dtype: torch.dtype) -> Tensor:
    """Return (K, 2) as (y, x): how far `offset_scale` moves the points of the grid away from its middle."""
    (kh, kw), (dh, dw), scale = window.kernel_size, window.dilation, window.offset_scale
    half_w, half_h = (dw * (kw - 1)) >> 1, (dh * (kh - 1)) >> 1
    rows = [[(scale - 1) * (b * dh - half_h), (scale - 1) * (a * dw - half_w)] for b in range(kh) for a in range(kw)]
    return torch.tensor(rows, dtype=dtype)


def _window_form(form: Callable[..., Tensor], tensors: int) -> Callable[..., Tensor]:
    """Return what takes the place of a node of a window operator: its arguments end with the name of a backend."""

    def run(*values: Any) -> Tensor:
        return form(*values[:tensors], Window(*values[tensors:-1]))

    return run


def _grid_sample_attention(value: Tensor, locations: Tensor, weights: Tensor, *settings: Any) -> Tensor:
    return deform_attn.forward(value, locations, weights, Levels(*settings[:-1]))


def _deform_conv_v4(x: Tensor, offset_mask: Tensor, window: Window) -> Tensor:
    return deform_conv(x, *deform_conv_v4.unpack(offset_mask, window), window)


_nodes = torch.ops.internimage
# Node of a program -> what takes its place, as `ExportedProgram.run_decompositions` wants it.
GRID_SAMPLE: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.detach_.default: lambda x: x,  # which torch puts behind constants, and then does not take back
    _nodes.dcnv3.default: _window_form(deform_conv_v3.forward, 3),
    _nodes.dcnv4.default: _window_form(deform_conv_v4.forward, 2),
    _nodes.ms_deform_attn.default: _grid_sample_attention,
}
DEFORM_CONV: dict[Any, Callable[..., Any]] = {
    **GRID_SAMPLE,
    _nodes.dcnv3.default: _window_form(deform_conv, 3),
    _nodes.dcnv4.default: _window_form(_deform_conv_v4, 2),
}
