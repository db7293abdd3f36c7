"""The steps between the matrix products of a block, in plain torch: the definition of what the kernels compute.

Shapes: R rows (any leading sizes), C channels; N images, H W map.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def gelu_(x: Tensor) -> None:
    """Replace x by its exact GELU."""
    x.copy_(F.gelu(x))


def residual_(
    y: Tensor,
    shortcut: Tensor | None,
    gamma: Tensor | None,
    norm_a: tuple[Tensor, Tensor] | None,
    norm_b: tuple[Tensor, Tensor] | None,
    eps: float,
) -> Tensor | None:
    """Replace y by shortcut + gamma * norm_a(y) and return norm_b of it; a part that is None is left out."""
    channels = y.shape[-1:]
    out = y if norm_a is None else F.layer_norm(y, channels, *norm_a, eps)
    if shortcut is not None:
        out = shortcut + (out if gamma is None else out * gamma)
        y.copy_(out)
    return None if norm_b is None else F.layer_norm(out, channels, *norm_b, eps)


def add_branch_(
    x: Tensor,
    y: Tensor,
    gamma: Tensor | None,
    norm_a: tuple[Tensor, Tensor] | None,
    norm_b: tuple[Tensor, Tensor] | None,
    normed: Tensor | None,
    eps: float,
) -> None:
    """Replace x by x + gamma * norm_a(y) and fill `normed` with norm_b of it; a part that is None is left out."""
    total = y.clone()
    following = residual_(total, x, gamma, norm_a, norm_b, eps)
    x.copy_(total)
    if normed is not None and following is not None:
        normed.copy_(following)


def depthwise_norm_gelu(
    x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float
) -> Tensor:
    """GELU of the layer norm of a depth-wise convolution of an (N, H, W, C) map; weight (C, 1, k, k), k odd."""
    channels, size = x.shape[-1], weight.shape[-1]
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=size // 2, groups=channels).permute(0, 2, 3, 1)
    return F.gelu(F.layer_norm(y, (channels,), norm_weight, norm_bias, eps))
