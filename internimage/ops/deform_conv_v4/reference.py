"""dcnv4 in pure torch: unpack, then the reference of dcnv3.

Shapes: N images, H W map, C channels, G groups, Ho Wo output map, K points, P packed channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops.deform_conv_v3 import reference
from internimage.ops.deform_conv_v3.reference import missing_reason as missing_reason
from internimage.ops.sampling import Window


def forward(x: Tensor, offset_mask: Tensor, window: Window) -> Tensor:
    """(N, Ho, Wo, C): the sum of weighted samples."""
    return reference.forward(x, *unpack(offset_mask, window), window)


def backward(grad: Tensor, x: Tensor, offset_mask: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Gradients of `forward`; the padding's gradient is zero."""
    grad_x, grad_offset, grad_mask = reference.backward(grad, x, *unpack(offset_mask, window), window)
    groups, k = window.groups, window.points
    by_group = grad_offset.unflatten(-1, (groups, 2 * k)), grad_mask.unflatten(-1, (groups, k))
    packed = torch.cat(by_group, dim=-1).flatten(3)
    return grad_x, torch.nn.functional.pad(packed, (0, offset_mask.shape[3] - 3 * groups * k))


def exact(x: Tensor, offset_mask: Tensor, window: Window) -> Tensor:
    """What `forward` computes, for derivatives of any order in any mode."""
    return reference.exact(x, *unpack(offset_mask, window), window)


def unpack(offset_mask: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Offsets (N, Ho, Wo, G*K*2) and weights (N, Ho, Wo, G*K) of a packed tensor, as dcnv3 takes them."""
    groups, k = window.groups, window.points
    by_group = offset_mask[..., : 3 * groups * k].unflatten(-1, (groups, 3 * k))
    return by_group[..., : 2 * k].flatten(3), by_group[..., 2 * k :].flatten(3)
