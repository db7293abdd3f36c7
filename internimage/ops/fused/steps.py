"""Fused inference steps of a block: GELU in place, residual sums with norms, depth-wise convolution with norm and GELU.

They have no gradients. Shapes: ... any leading sizes, C channels; N images, H W map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from internimage.ops.backends import Backend
from internimage.ops.fused import kernel_cpp, reference
from internimage.ops.fused.residual import RESIDUAL_SCHEMA, Residual
from internimage.ops.fused.rows import kernels
from internimage.ops.registration import register_inference_operator
from internimage.ops.runtime.triton import support
from internimage.ops.sampling import expect_shape


def _implementations(name: str) -> dict[str, Backend]:
    """The backends of a step; Triton's, first where its interpreter was asked for, is imported at its first call."""

    def triton(*values: Any) -> Any:
        return getattr(kernels(), name)(*values)

    return {
        "triton": Backend(support.missing_reason, triton),
        "cpp": Backend(kernel_cpp.missing_reason, getattr(kernel_cpp, name)),
        "reference": Backend(reference.missing_reason, getattr(reference, name)),
    }


_gelu_ = register_inference_operator(
    "gelu_",
    "(Tensor(a!) x) -> ()",
    implementations=_implementations("gelu_"),
    fake=lambda x: None,
)
_add_shortcut_ = register_inference_operator(
    "add_shortcut_",
    f"(Tensor(a!) y, Tensor shortcut, Tensor(b!)? normed, {RESIDUAL_SCHEMA}) -> ()",
    implementations=_implementations("add_shortcut_"),
    fake=lambda *values: None,
    maps=2,
)
_add_residual_ = register_inference_operator(
    "add_residual_",
    f"(Tensor(a!) x, Tensor y, Tensor(b!)? normed, {RESIDUAL_SCHEMA}) -> ()",
    implementations=_implementations("add_residual_"),
    fake=lambda *values: None,
    maps=2,
)
_depthwise_norm_gelu = register_inference_operator(
    "depthwise_norm_gelu",
    "(Tensor x, Tensor weight, Tensor bias, Tensor norm_weight, Tensor norm_bias, float eps) -> Tensor",
    implementations=_implementations("depthwise_norm_gelu"),
    fake=lambda x, *parameters: torch.empty_like(x),
)


def gelu_(x: Tensor) -> Tensor:
    """Replace a contiguous tensor of any shape by its exact (erf) GELU, to 3e-7 in float32, and return it.

    Example:
        >>> gelu_(torch.tensor([0.0, 1.0]))
        tensor([0.0000, 0.8413])
    """
    _expect_contiguous("x", x)
    _gelu_(x)
    return x


def add_shortcut_(y: Tensor, shortcut: Tensor, residual: Residual) -> Tensor | None:
    """Replace y by shortcut + gamma * norm(y) and return next_norm of the sum.

    Args:
        y: (..., C) contiguous output of a branch, overwritten by the sum.
        shortcut: tensor of the same shape, contiguous.
        residual: scale and norms, see `Residual`.

    Returns:
        (..., C) normalized sum, or None without `next_norm`.

    Raises:
        ValueError: shapes differ or a tensor is not contiguous.

    Example:
        >>> y = torch.ones(1, 2)
        >>> add_shortcut_(y, torch.ones(1, 2), Residual())
        >>> y
        tensor([[2., 2.]])
    """
    expect_shape("shortcut", shortcut, tuple(y.shape), "the shape of y")
    _expect_contiguous("y", y)
    _expect_contiguous("shortcut", shortcut)
    normed = None if residual.next_weight is None else torch.empty_like(y)
    _add_shortcut_(y, shortcut, normed, *residual)
    return normed


def add_residual_(x: Tensor, y: Tensor, residual: Residual, normed: Tensor | None = None) -> None:
    """Add gamma * norm(y) to x and write next_norm of the sum to `normed`: `add_shortcut_` into the shortcut.

    Args:
        x: (..., C) contiguous, replaced by the sum.
        y: (..., C) contiguous output of a branch, left as it is.
        residual: scale and norms, see `Residual`.
        normed: (..., C) contiguous, filled with `next_norm` of the sum; required with it and only then.

    Raises:
        ValueError: shapes differ, a tensor is not contiguous, or one of `next_norm` and `normed` is missing.

    Example:
        >>> x = torch.ones(1, 2)
        >>> add_residual_(x, torch.ones(1, 2), Residual())
        >>> x
        tensor([[2., 2.]])
    """
    if (residual.next_weight is None) != (normed is None):
        raise ValueError("expected `next_norm` and `normed` together, given one of them")
    named = {"x": x, "y": y} if normed is None else {"x": x, "y": y, "normed": normed}
    for name, tensor in named.items():
        expect_shape(name, tensor, tuple(x.shape), "the shape of x")
        _expect_contiguous(name, tensor)
    _add_residual_(x, y, normed, *residual)


def depthwise_norm_gelu(x: Tensor, conv: nn.Conv2d, norm: nn.LayerNorm) -> Tensor:
    """Depth-wise convolution of a contiguous (N, H, W, C) map, then layer norm and GELU.

    Args:
        x: (N, H, W, C) contiguous map.
        conv: depth-wise convolution with a bias, stride 1, odd kernel, "same" padding.
        norm: layer norm over C.

    Returns:
        (N, H, W, C) contiguous map.

    Example:
        >>> conv = nn.Conv2d(8, 8, 3, padding=1, groups=8).requires_grad_(False)
        >>> depthwise_norm_gelu(torch.rand(1, 5, 6, 8), conv, nn.LayerNorm(8)).shape
        torch.Size([1, 5, 6, 8])
    """
    size, bias = conv.kernel_size[0], conv.bias
    if bias is None or conv.groups != x.shape[-1] or size % 2 == 0 or conv.padding != (size // 2, size // 2):
        raise ValueError(f"expected a depth-wise 'same' convolution with bias for {x.shape[-1]} channels, given {conv}")
    _expect_contiguous("x", x)
    return _depthwise_norm_gelu(x, conv.weight, bias, norm.weight, norm.bias, norm.eps)


def _expect_contiguous(name: str, x: Tensor) -> None:
    if not x.is_contiguous():
        raise ValueError(f"{name} must be contiguous, given strides {x.stride()}; call .contiguous() first")
