"""The steps between the matrix products of a block through the compiled kernels (kernel_cpp.cpp).

Shapes: R rows (any leading sizes), C channels; N images, H W map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops.native import library
from internimage.ops.rowwise.branch import Branch

GELU, RESIDUAL = 0, 1
_NO_RESIDUAL = library.ResidualArgs()


def missing_reason(device: str, dtype: torch.dtype) -> str | None:
    """Why the compiled kernels cannot run on tensors of this device type and dtype, or None when they can."""
    if device != "cpu":
        return f"the compiled kernels run on cpu tensors, given {device}"
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"the fused steps support float32, float16 and bfloat16, given {dtype}"
    return library.missing_reason()


def gelu_(x: Tensor) -> None:
    """Replace the contiguous x by its GELU, to 3e-7."""
    if x.numel():
        library.call("internimage_rows", _rows(x, GELU, _NO_RESIDUAL))


def residual_(y: Tensor, shortcut: Tensor, branch: Branch) -> Tensor | None:
    """Replace the contiguous y by shortcut + gamma * norm(y) and return next_norm of it."""
    normed = None if branch.next_norm is None else torch.empty_like(y)
    _residual(y, shortcut, y, branch, normed)
    return normed


def add_branch_(x: Tensor, y: Tensor, branch: Branch, normed: Tensor | None) -> None:
    """Replace the contiguous x by x + gamma * norm(y) and fill `normed` with next_norm of it."""
    _residual(y, x, x, branch, normed)


def _residual(y: Tensor, shortcut: Tensor, total: Tensor, branch: Branch, normed: Tensor | None) -> None:
    if y.numel():
        residual, _kept = residual_args(shortcut, total, branch, normed)
        library.call("internimage_rows", _rows(y, RESIDUAL, residual))


def residual_args(
    shortcut: Tensor | None, total: Tensor, branch: Branch, normed: Tensor | None
) -> tuple[library.ResidualArgs, list[Tensor | None]]:
    """How a branch joins the sum, and the tensors that must live until the call returns."""
    *parameters, eps = branch.flat()
    kept = [None if t is None else _in_dtype(t, total.dtype) for t in (shortcut, total, *parameters, normed)]
    return library.ResidualArgs(*(0 if t is None else t.data_ptr() for t in kept), eps), kept


def depthwise_norm_gelu(
    x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float
) -> Tensor:
    """GELU of the layer norm of a depth-wise convolution of a contiguous (N, H, W, C) map."""
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    taps = _in_dtype(weight, x.dtype).flatten(1).t().contiguous()  # (k * k, C)
    vectors = [_in_dtype(t, x.dtype) for t in (bias, norm_weight, norm_bias)]
    n, height, width, channels = x.shape
    args = library.DepthwiseArgs(
        *(t.data_ptr() for t in (x, taps, *vectors, out)),
        *(n, height, width, channels, weight.shape[-1], library.DATA_TYPES[x.dtype], torch.get_num_threads()),
        *(eps, library.start_team()),
    )
    library.call("internimage_depthwise", args)
    return out


def _in_dtype(t: Tensor, dtype: torch.dtype) -> Tensor:
    return t if t.dtype is dtype else t.to(dtype)


def _rows(y: Tensor, operation: int, residual: library.ResidualArgs) -> library.RowArgs:
    channels = y.shape[-1]
    return library.RowArgs(
        *(y.data_ptr(), residual, y.numel() // channels, channels, operation),
        *(library.DATA_TYPES[y.dtype], torch.get_num_threads(), library.start_team()),
    )
