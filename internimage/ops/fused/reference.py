"""The steps between the linear layers of a block, in plain torch: the definition of what the kernels compute.

Shapes: ... any leading sizes, C channels; N images, H W map.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.ops.fused.residual import Residual


def missing_reason(device: str, dtype: torch.dtype) -> str | None:
    """Always None: the reference runs everywhere."""
    return None


def gelu_(x: Tensor) -> None:
    """Replace x by its exact GELU."""
    x.copy_(F.gelu(x))


def add_shortcut_(y: Tensor, shortcut: Tensor, normed: Tensor | None, *residual: Tensor | float | None) -> None:
    """Replace y by shortcut + gamma * norm(y) and fill `normed` with next_norm of it."""
    gamma, weight, bias, next_weight, next_bias, eps = Residual(*residual)  # pyright: ignore[reportArgumentType]  # in its order
    out = y if weight is None else F.layer_norm(y, y.shape[-1:], weight, bias, eps)
    y.copy_(shortcut + (out if gamma is None else out * gamma))
    if normed is not None:
        normed.copy_(F.layer_norm(y, y.shape[-1:], next_weight, next_bias, eps))


def add_residual_(x: Tensor, y: Tensor, normed: Tensor | None, *residual: Tensor | float | None) -> None:
    """Replace x by x + gamma * norm(y) and fill `normed` with next_norm of it."""
    total = y.clone()
    add_shortcut_(total, x, normed, *residual)
    x.copy_(total)


def depthwise_norm_gelu(
    x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float
) -> Tensor:
    """GELU of the layer norm of a depth-wise convolution of an (N, H, W, C) map; weight (C, 1, k, k), k odd."""
    channels, size = x.shape[-1], weight.shape[-1]
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=size // 2, groups=channels).permute(0, 2, 3, 1)
    return F.gelu(F.layer_norm(y, (channels,), norm_weight, norm_bias, eps))
