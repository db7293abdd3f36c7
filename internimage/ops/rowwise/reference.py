"""The steps between the matrix products of a block, in plain torch: the definition of what the kernels compute.

Shapes: R rows (any leading sizes), C channels; N images, H W map.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from internimage.ops.rowwise.branch import Branch


def gelu_(x: Tensor) -> None:
    """Replace x by its exact GELU."""
    x.copy_(F.gelu(x))


def residual_(y: Tensor, shortcut: Tensor, branch: Branch) -> Tensor | None:
    """Replace y by shortcut + gamma * norm(y) and return next_norm of it."""
    channels = y.shape[-1:]
    out = y if branch.norm is None else F.layer_norm(y, channels, *branch.norm, branch.eps)
    y.copy_(shortcut + (out if branch.gamma is None else out * branch.gamma))
    return None if branch.next_norm is None else F.layer_norm(y, channels, *branch.next_norm, branch.eps)


def add_branch_(x: Tensor, y: Tensor, branch: Branch, normed: Tensor | None) -> None:
    """Replace x by x + gamma * norm(y) and fill `normed` with next_norm of it."""
    total = y.clone()
    following = residual_(total, x, branch)
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
