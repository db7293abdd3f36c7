"""The public operator `dcnv4`, its checks, and its registration with torch.

Shapes: N images, H W map, C channels, G groups, D = C / G, Ho Wo output map, K points of a window, P packed channels.
"""

from __future__ import annotations

from torch import Tensor

from internimage.ops.backends import check_name
from internimage.ops.deform_conv_v3 import kernel_cpp
from internimage.ops.deform_conv_v4 import reference
from internimage.ops.registration import register_operator
from internimage.ops.runtime.triton.support import standard_backends
from internimage.ops.sampling import (
    WINDOW_SCHEMA,
    Pair,
    Window,
    autocast,
    check_companion,
    check_map,
    expect_shape,
    make_window,
    map_shape,
)

_registered = register_operator(
    "dcnv4",
    tensors=("x", "offset_mask"),
    settings=WINDOW_SCHEMA,
    make_settings=Window,
    output_shape=map_shape,
    implementations=standard_backends(kernel_cpp, "internimage.ops.deform_conv_v3.kernel_triton", reference),
    exact=reference.exact,
)


def packed_channels(groups: int, points: int) -> int:
    """P, the channels of `offset_mask`: 3 values for each point of each group, rounded up to a multiple of 8.

    Args:
        groups: G.
        points: K, 9 for a 3x3 window.

    Example:
        >>> packed_channels(groups=4, points=9)
        112
    """
    return -(-3 * groups * points // 8) * 8


def dcnv4(
    x: Tensor,
    offset_mask: Tensor,
    *,
    groups: int,
    kernel_size: Pair = 3,
    stride: Pair = 1,
    padding: Pair | None = None,
    dilation: Pair = 1,
    offset_scale: float = 1.0,
    remove_center: bool = False,
    softmax: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Sample `x` at learned positions and sum the samples with unbounded learned weights.

    The same sum as `dcnv3`, whose promises on dtypes, views and autocast hold here too; the weights need not be
    positive nor sum to 1, and offsets and weights come in one tensor.

    Args:
        x: (N, H, W, C) map, channels last; float16, bfloat16, float32 or float64.
        offset_mask: (N, Ho, Wo, P) packed values: group g owns channels g*3K to g*3K + 3K - 1, first 2K shifts in input
            pixels ((x, y) pairs, points width-outer and height-inner), then K weights. P is 3*G*K, or that rounded up
            to a multiple of 8 (`packed_channels`); the padding stands at the very end and is not read.
        groups: G; C must be divisible by G.
        kernel_size: sides of the grid; K is their product, less one with `remove_center`.
        stride: pixels between windows.
        padding: zero pixels around the map; None keeps the map's size at stride 1 for odd kernels.
        dilation: pixels between grid points.
        offset_scale: factor on the grid (about its center) and on the offsets, no unit.
        remove_center: leave out the grid's middle point; kernel sides must be odd.
        softmax: take the softmax of each group's K weights first, which makes this `dcnv3`.
        backend: as in `dcnv3`.

    Returns:
        (N, Ho, Wo, C) map, same dtype as `x`.

    Raises:
        ValueError: a shape or setting does not fit; the message shows the expected and the given one.
        TypeError: the dtypes differ or are not floating point.
        BackendUnavailable: a named backend cannot run here; the message says why.

    Source: DCNv4, section 3, https://arxiv.org/abs/2401.06197; checked against OpenGVLab/DCNv4 4b848f7.

    Example:
        >>> import torch
        >>> dcnv4(torch.rand(1, 8, 8, 16), torch.zeros(1, 8, 8, packed_channels(groups=4, points=9)), groups=4).shape
        torch.Size([1, 8, 8, 16])
    """
    window = make_window(kernel_size, stride, padding, dilation, groups, offset_scale, remove_center, softmax)
    return run(x, offset_mask, window, backend)


def run(x: Tensor, offset_mask: Tensor, window: Window, backend: str) -> Tensor:
    """`dcnv4` with a window that is made once for many calls."""
    x, offset_mask = autocast(x, offset_mask)
    out_hw = check_map(x, window)
    used, packed = 3 * window.groups * window.points, packed_channels(window.groups, window.points)
    channels = used if offset_mask.shape[-1:] == (used,) else packed
    meaning = f"(N, Ho, Wo, 3*G*K rounded up to a multiple of 8), or unpadded with {used} channels"
    expect_shape("offset_mask", offset_mask, (x.shape[0], *out_hw, channels), meaning)
    check_companion("offset_mask", offset_mask, x)
    check_name("dcnv4", backend)
    return _registered((x, offset_mask), window, backend)
