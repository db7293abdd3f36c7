"""What the operators share: window geometry, point order and strided views.

Shapes: N images, H W map, C channels, G groups, D = C / G, Ho Wo output map, K points of a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from internimage.ops.bilinear import Position

Pair = int | tuple[int, int]

# The fields of Window, in order, as torch writes them in the schema of an operator.
WINDOW_SCHEMA = (
    "int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, int groups, float offset_scale, "
    "bool remove_center, bool softmax"
)


class Window(NamedTuple):
    """Geometry of a window operator; every pair is (height, width)."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    offset_scale: float
    remove_center: bool
    softmax: bool

    @property
    def points(self) -> int:
        """K, the sampled points of each output pixel and group."""
        return self.kernel_size[0] * self.kernel_size[1] - int(self.remove_center)

    def geometry(self) -> dict[str, int]:
        """The four pairs as the kernels take them, side by side."""
        names = "kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w"
        sides = (*self.kernel_size, *self.stride, *self.padding, *self.dilation)
        return dict(zip(names, sides, strict=True))

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(Ho, Wo) of an (H, W) map."""
        (kh, kw), (sh, sw), (ph, pw), (dh, dw) = self.kernel_size, self.stride, self.padding, self.dilation
        return (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1


class PointTensors(NamedTuple):
    """Offsets and weights of a window operator's points, (N, Ho, Wo, >= G * its group), where they lie in memory.

    `*_group` is the distance in elements from one group's values to the next.
    """

    offset: Tensor
    offset_group: int
    weight: Tensor
    weight_group: int

    @classmethod
    def of(cls, tensors: list[Tensor], window: Window) -> PointTensors:
        """The two tensors of dcnv3, or the one of dcnv4."""
        k = window.points
        if len(tensors) == 2:
            return cls(tensors[0], 2 * k, tensors[1], k)
        return cls(tensors[0], 3 * k, tensors[0][..., 2 * k :], 3 * k)


def pair(value: Pair, name: str, least: int) -> tuple[int, int]:
    """`value` as (height, width); both must be at least `least`."""
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(isinstance(v, int) and v >= least for v in both):
        raise ValueError(f"{name} must be an int >= {least} or a (height, width) pair of such, given {value!r}")
    return both[0], both[1]


def make_window(
    kernel_size: Pair,
    stride: Pair,
    padding: Pair | None,
    dilation: Pair,
    groups: int,
    offset_scale: float,
    remove_center: bool,
    softmax: bool,
) -> Window:
    """Check and complete the geometry arguments of a public window operator."""
    kernel, spread = pair(kernel_size, "kernel_size", 1), pair(dilation, "dilation", 1)
    same = (spread[0] * (kernel[0] - 1) // 2, spread[1] * (kernel[1] - 1) // 2)
    if remove_center and (kernel[0] % 2 == 0 or kernel[1] % 2 == 0 or kernel == (1, 1)):
        raise ValueError(f"remove_center needs odd kernel sides and more than one point, given kernel_size={kernel}")
    if groups < 1:
        raise ValueError(f"groups must be at least 1, given {groups}")
    return Window(
        kernel,
        pair(stride, "stride", 1),
        same if padding is None else pair(padding, "padding", 0),
        spread,
        groups,
        float(offset_scale),
        bool(remove_center),
        bool(softmax),
    )


def expect_shape(name: str, tensor: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    """Raise ValueError unless `tensor` has `shape`; `meaning` explains the expected sizes."""
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {shape} = {meaning}, given {tuple(tensor.shape)}")


def check_map(x: Tensor, window: Window) -> tuple[int, int]:
    """Check the map of a window operator and return (Ho, Wo)."""
    if x.dim() != 4:
        raise ValueError(f"x must have 4 dimensions (N, H, W, C), channels last, given shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"x must be a floating-point tensor, given {x.dtype}")
    _, height, width, channels = x.shape
    if channels % window.groups or channels == 0:
        raise ValueError(f"the channels of x must divide into groups={window.groups}, given {channels}")
    if height < 1 or width < 1:
        raise ValueError(f"x must have at least one pixel, given shape {tuple(x.shape)}")
    out_height, out_width = window.output_size(height, width)
    if out_height < 1 or out_width < 1:
        raise ValueError(
            f"a window of {window.kernel_size} with dilation {window.dilation} does not fit a {(height, width)} map "
            f"with padding {window.padding}; use a larger padding"
        )
    return out_height, out_width


def check_sides(*sides: int, pixels: int | None = None, row: int = 0) -> None:
    """Raise ValueError when a map is too large for the kernels.

    They number pixels in 29 bits, coordinates in 22 and the elements of a `row` of pixels in 31.
    """
    total = math.prod(sides) if pixels is None else pixels
    if total >= 2**29 or row >= 2**31 or max(sides) >= 2**22:
        raise ValueError(
            f"the kernels take maps of fewer than 2**29 pixels, sides shorter than 2**22 and rows of fewer than 2**31 "
            f"elements, given {sides}; cut the map, or use backend='reference'"
        )


def check_companion(name: str, tensor: Tensor, x: Tensor) -> None:
    """Raise TypeError or ValueError unless `tensor` has the dtype and device of `x`."""
    if tensor.dtype != x.dtype:
        raise TypeError(f"{name} must have the dtype of x ({x.dtype}), given {tensor.dtype}; convert it first")
    if tensor.device != x.device:
        raise ValueError(f"{name} must be on the device of x ({x.device}), given {tensor.device}; move it first")


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the autocast dtype of their device when autocast is on; float64 stays as it is."""
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors)


def map_shape(x: Tensor, offset: Tensor, *others: object) -> tuple[int | torch.SymInt, ...]:
    """(N, Ho, Wo, C): the pixels of the offsets with the channels of the map."""
    return (*offset.shape[:3], x.shape[3])


def pixel_stride(tensor: Tensor) -> int:
    """Elements from one pixel of (N, H, W, C) to the next; axes of size 1 have no meaningful stride."""
    for axis in (2, 1, 0):
        if tensor.shape[axis] > 1:
            return tensor.stride(axis)
    return tensor.shape[3]


def pixel_rows(tensor: Tensor) -> Tensor:
    """`tensor` itself when its pixels lie evenly spaced with channels side by side, else a contiguous copy.

    A slice of the last axis of a contiguous tensor qualifies, so one fused projection can feed several arguments.
    """
    if tensor.is_contiguous():
        return tensor
    n, h, w, c = tensor.shape
    step = pixel_stride(tensor)
    even = (
        (c == 1 or tensor.stride(3) == 1)
        and step >= c
        and (h == 1 or tensor.stride(1) == w * step)
        and (n <= 1 or tensor.stride(0) == h * w * step)
    )
    return tensor if even else tensor.contiguous()


def window_passes(
    run_forward: Callable[[Tensor, PointTensors, Window], Tensor],
    run_backward: Callable[[Tensor, Tensor, PointTensors, PointTensors, Window], Tensor],
) -> tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, ...]]]:
    """Both directions of dcnv3 and dcnv4 alike, through kernels that read offsets and weights where they lie.

    Args:
        run_forward: map, points and window to the output.
        run_backward: the output's gradient, map, points, their gradients to fill, and window to the map's gradient.
    """

    def forward(x: Tensor, *values: Any) -> Tensor:
        """(N, Ho, Wo, C); strided views whose channels lie side by side are read in place."""
        *tensors, window = values
        return run_forward(pixel_rows(x), PointTensors.of([pixel_rows(t) for t in tensors], window), window)

    def backward(grad: Tensor, x: Tensor, *values: Any) -> tuple[Tensor, ...]:
        """Gradients of all tensors, contiguous; that of dcnv4's padding is zero."""
        *tensors, window = values
        tensors = [pixel_rows(t) for t in tensors]
        gradients = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]
        if len(gradients) == 1:
            gradients[0][..., 3 * window.groups * window.points :] = 0
        points, to_fill = PointTensors.of(tensors, window), PointTensors.of(gradients, window)
        return run_backward(grad, pixel_rows(x), points, to_fill, window), *gradients

    return forward, backward


def window_points(window: Window) -> list[tuple[int, int]]:
    """(column, row) of every point in order: width outer, height inner, the center left out when asked."""
    kh, kw = window.kernel_size
    center = (kw // 2, kh // 2) if window.remove_center else None
    return [(a, b) for a in range(kw) for b in range(kh) if (a, b) != center]


def window_positions(offset: Tensor, window: Window, dtype: torch.dtype) -> Position:
    """Positions in input pixels, (N, Ho, Wo, G, K, 2) as (x, y), of the offsets (N, Ho, Wo, G, K, 2)."""
    out_h, out_w = offset.shape[1:3]
    (kh, kw), (dh, dw), scale = window.kernel_size, window.dilation, window.offset_scale
    half_w, half_h = (dw * (kw - 1)) >> 1, (dh * (kh - 1)) >> 1
    grid = torch.tensor(
        [
            (
                half_w - window.padding[1] + scale * (a * dw - half_w),
                half_h - window.padding[0] + scale * (b * dh - half_h),
            )
            for a, b in window_points(window)
        ],
        dtype=dtype,
        device=offset.device,
    )  # (K, 2)
    columns = torch.arange(out_w, dtype=dtype, device=offset.device) * window.stride[1]
    rows = torch.arange(out_h, dtype=dtype, device=offset.device) * window.stride[0]
    corner = torch.stack((columns.expand(out_h, out_w), rows[:, None].expand(out_h, out_w)), dim=-1)  # (Ho, Wo, 2)
    return Position(corner[:, :, None, None], grid + scale * offset.to(dtype))


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of positions and sums: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
