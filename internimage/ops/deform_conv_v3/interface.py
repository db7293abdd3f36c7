"""The public operator `dcnv3`, its checks, and its registration with torch.

Shapes: N images, H W map, C channels, G groups, D = C / G, Ho Wo output map, K points of a window.
"""

from __future__ import annotations

from torch import Tensor

from internimage.ops.backends import check_name
from internimage.ops.deform_conv_v3 import kernel_cpp, reference
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
    "dcnv3",
    tensors=("x", "offset", "mask"),
    settings=WINDOW_SCHEMA,
    make_settings=Window,
    output_shape=map_shape,
    implementations=standard_backends(kernel_cpp, "internimage.ops.deform_conv_v3.kernel_triton", reference),
    exact=reference.exact,
)


def dcnv3(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
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
    """Sample `x` at learned positions and sum the samples with learned weights.

    Every backend gives the result of the reference within the tolerances of docs/operators.md. Positions and sums
    are computed in float32 (float64 for float64) whatever the dtype. Slices of the last axis of a contiguous tensor
    are read in place. Under autocast the three tensors are converted to the autocast dtype.

    Args:
        x: (N, H, W, C) map, channels last; float16, bfloat16, float32 or float64.
        offset: (N, Ho, Wo, G*K*2) shifts in input pixels, (x, y) pairs, points width-outer and height-inner.
        mask: (N, Ho, Wo, G*K) weights, already softmaxed over K; logits when `softmax` is true.
        groups: G; C must be divisible by G.
        kernel_size: sides of the grid; K is their product, less one with `remove_center`.
        stride: pixels between windows.
        padding: zero pixels around the map; None keeps the map's size at stride 1 for odd kernels.
        dilation: pixels between grid points.
        offset_scale: factor on the grid (about its center) and on the offsets, no unit.
        remove_center: leave out the grid's middle point; kernel sides must be odd.
        softmax: apply the softmax over each group's K weights inside the operator.
        backend: "auto" takes the first that can run; a named one never falls back. "reference" is traced by
            torch.export as ordinary torch operators, the others as one node.

    Returns:
        (N, Ho, Wo, C) map, same dtype as `x`.

    Raises:
        ValueError: a shape or setting does not fit; the message shows the expected and the given one.
        TypeError: the dtypes differ or are not floating point.
        BackendUnavailable: a named backend cannot run here; the message says why.

    Source: InternImage, section 3.1, https://arxiv.org/abs/2211.05778; checked against OpenGVLab/InternImage 31c962d.

    Example:
        >>> import torch
        >>> x, offset, mask = torch.rand(1, 8, 8, 16), torch.zeros(1, 8, 8, 4 * 9 * 2), torch.ones(1, 8, 8, 4 * 9) / 9
        >>> dcnv3(x, offset, mask, groups=4).shape
        torch.Size([1, 8, 8, 16])
    """
    window = make_window(kernel_size, stride, padding, dilation, groups, offset_scale, remove_center, softmax)
    return run(x, offset, mask, window, backend)


def run(x: Tensor, offset: Tensor, mask: Tensor, window: Window, backend: str) -> Tensor:
    """`dcnv3` with a window that is made once for many calls."""
    x, offset, mask = autocast(x, offset, mask)
    leading, values = (x.shape[0], *check_map(x, window)), window.groups * window.points
    expect_shape("offset", offset, (*leading, 2 * values), "(N, Ho, Wo, G*K*2)")
    expect_shape("mask", mask, (*leading, values), "(N, Ho, Wo, G*K)")
    check_companion("offset", offset, x)
    check_companion("mask", mask, x)
    check_name("dcnv3", backend)
    return _registered((x, offset, mask), window, backend)
