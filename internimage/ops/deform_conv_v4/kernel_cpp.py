"""dcnv4 on a CPU: the window kernels of dcnv3, reading offsets and weights where they lie in the packed tensor.

Shapes: N images, H W map, C channels, G groups, Ho Wo output map, K points, P packed channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops.deform_conv_v3.kernel_cpp import missing_reason as missing_reason
from internimage.ops.deform_conv_v3.kernel_cpp import run_backward, run_forward
from internimage.ops.sampling import Window, pixel_rows


def forward(x: Tensor, offset_mask: Tensor, window: Window) -> Tensor:
    """(N, Ho, Wo, C); strided views whose channels lie side by side are read in place."""
    x, offset_mask = pixel_rows(x), pixel_rows(offset_mask)
    k = window.points
    out = x.new_empty(*offset_mask.shape[:3], x.shape[3])
    run_forward(x, offset_mask, 3 * k, offset_mask[..., 2 * k :], 3 * k, out, window)
    return out


def backward(grad: Tensor, x: Tensor, offset_mask: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Gradients of x and offset_mask, both contiguous; the padding's gradient is zero."""
    x, offset_mask = pixel_rows(x), pixel_rows(offset_mask)
    k = window.points
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    packed = torch.empty_like(offset_mask, memory_format=torch.contiguous_format)
    packed[..., 3 * window.groups * k :] = 0
    weight, grad_weight = offset_mask[..., 2 * k :], packed[..., 2 * k :]
    run_backward(grad, x, offset_mask, 3 * k, weight, 3 * k, grad_x, packed, grad_weight, window)
    return grad_x, packed
