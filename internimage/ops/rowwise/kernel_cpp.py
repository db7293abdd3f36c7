"""The steps between the matrix products of a block through the compiled kernels (kernel_cpp.cpp).

Shapes: R rows (any leading sizes), C channels; N images, H W map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops.native import library

GELU, RESIDUAL = 0, 1


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
    if y.numel() == 0:
        return normed
    args = _rows(y, RESIDUAL, eps)
    named = {"shortcut": shortcut, "gamma": gamma, "normed": normed}
    named["weight_a"], named["bias_a"] = norm_a or (None, None)
    named["weight_b"], named["bias_b"] = norm_b or (None, None)
    kept = {name: t.to(y.dtype) for name, t in named.items() if t is not None}  # alive until the call returns
    for name, tensor in kept.items():
        setattr(args, name, tensor.data_ptr())
    library.call("internimage_rows", args)
    return normed


def depthwise_norm_gelu(
    x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float
) -> Tensor:
    """GELU of the layer norm of a depth-wise convolution of a contiguous (N, H, W, C) map."""
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    taps = weight.flatten(1).t().to(x.dtype).contiguous()  # (k * k, C)
    vectors = [t.to(x.dtype) for t in (bias, norm_weight, norm_bias)]
    n, height, width, channels = x.shape
    args = library.DepthwiseArgs(
        *(t.data_ptr() for t in (x, taps, *vectors, out)),
        *(n, height, width, channels, weight.shape[-1], library.DATA_TYPES[x.dtype], torch.get_num_threads()),
        *(eps, library.start_team()),
    )
    library.call("internimage_depthwise", args)
    return out


def _rows(y: Tensor, operation: int, eps: float) -> library.RowArgs:
    channels = y.shape[-1]
    return library.RowArgs(
        *(y.data_ptr(), 0, 0, 0, 0, 0, 0, 0),
        *(y.numel() // channels, channels, operation, library.DATA_TYPES[y.dtype], torch.get_num_threads()),
        *(eps, library.start_team()),
    )
