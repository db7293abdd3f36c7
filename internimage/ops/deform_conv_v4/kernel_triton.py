"""dcnv4 on a GPU: the window kernels of dcnv3, reading offsets and weights where they lie in the packed tensor.

Shapes: N images, H W map, C channels, G groups, Ho Wo output map, K points, P packed channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops.deform_conv_v3.kernel_triton import run_backward, run_forward
from internimage.ops.sampling import PointTensors, Window, pixel_rows


def forward(x: Tensor, offset_mask: Tensor, window: Window) -> Tensor:
    """(N, Ho, Wo, C); strided views whose channels lie side by side are read in place."""
    return run_forward(pixel_rows(x), PointTensors.packed(pixel_rows(offset_mask), window), window)


def backward(grad: Tensor, x: Tensor, offset_mask: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Gradients of x and offset_mask, both contiguous; the padding's gradient is zero."""
    x, offset_mask = pixel_rows(x), pixel_rows(offset_mask)
    gradient = torch.empty_like(offset_mask, memory_format=torch.contiguous_format)
    gradient[..., 3 * window.groups * window.points :] = 0
    points, gradients = (PointTensors.packed(both, window) for both in (offset_mask, gradient))
    return run_backward(grad, x, points, gradients, window), gradient
