"""The steps between the matrix products of a block through the compiled kernels (kernel_cpp.cpp).

Shapes: R rows (any leading sizes), C channels; N images, H W map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops.native import library

GELU, RESIDUAL = 0, 1
_NO_OTHERS = (0,) * 8


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
        library.call("internimage_rows", _rows(x, GELU, 0.0))


def residual_(
    y: Tensor,
    shortcut: Tensor | None,
    gamma: Tensor | None,
    norm_a: tuple[Tensor, Tensor] | None,
    norm_b: tuple[Tensor, Tensor] | None,
    eps: float,
) -> Tensor | None:
    """Replace the contiguous y by shortcut + gamma * norm_a(y) and return norm_b of it."""
    normed = None if norm_b is None else torch.empty_like(y)
    _residual(y, shortcut, y, gamma, norm_a, norm_b, normed, eps)
    return normed


def add_branch_(
    x: Tensor,
    y: Tensor,
    gamma: Tensor | None,
    norm_a: tuple[Tensor, Tensor] | None,
    norm_b: tuple[Tensor, Tensor] | None,
    normed: Tensor | None,
    eps: float,
) -> None:
    """Replace the contiguous x by x + gamma * norm_a(y) and fill `normed` with norm_b of it."""
    _residual(y, x, x, gamma, norm_a, norm_b, normed, eps)


def _residual(
    y: Tensor,
    shortcut: Tensor | None,
    total: Tensor,
    gamma: Tensor | None,
    norm_a: tuple[Tensor, Tensor] | None,
    norm_b: tuple[Tensor, Tensor] | None,
    normed: Tensor | None,
    eps: float,
) -> None:
    if y.numel() == 0:
        return
    tensors = (y, shortcut, total, gamma, *(norm_a or (None, None)), *(norm_b or (None, None)), normed)
    kept = [None if t is None else _in_dtype(t, y.dtype) for t in tensors]  # alive until the call returns
    library.call("internimage_rows", _rows(y, RESIDUAL, eps, *(0 if t is None else t.data_ptr() for t in kept[1:])))


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


def _rows(y: Tensor, operation: int, eps: float, *others: int) -> library.RowArgs:
    channels = y.shape[-1]
    return library.RowArgs(
        *(y.data_ptr(), *(others or _NO_OTHERS)),
        *(y.numel() // channels, channels, operation, library.DATA_TYPES[y.dtype], torch.get_num_threads()),
        *(eps, library.start_team()),
    )
