"""The window operators, dcnv3 and dcnv4, on a CPU through the compiled kernels (kernel_cpp.cpp).

Shapes: N images, H W map, C channels, G groups, D = C / G, Ho Wo output map, K points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops.runtime import library
from internimage.ops.runtime.abi import WindowArgs
from internimage.ops.sampling import PointTensors, Window, check_sides, pixel_stride, window_passes


def missing_reason(device: str, dtype: torch.dtype) -> str | None:
    """Why the compiled kernels cannot run on tensors of this device type and dtype, or None when they can."""
    if device != "cpu":
        return f"the compiled kernels run on cpu tensors, given {device}"
    if dtype not in library.DATA_TYPES:
        return f"the compiled kernels support float32, float64, float16 and bfloat16, given {dtype}"
    return library.missing_reason()


def run_forward(x: Tensor, points: PointTensors, window: Window) -> Tensor:
    """(N, Ho, Wo, C)."""
    out = x.new_empty(*points.offset.shape[:3], x.shape[3])
    if out.numel():
        args = _arguments(x, points, out, window)
        args.out = out.data_ptr()
        library.call("internimage_window_forward", args, x.dtype, library.team_size(4 * window.points * out.numel()))
    return out


def run_backward(grad: Tensor, x: Tensor, points: PointTensors, gradients: PointTensors, window: Window) -> Tensor:
    """Fill the gradients of offsets and weights, and return that of x."""
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    if grad.numel():
        grad = grad.contiguous()
        args = _arguments(x, points, grad, window)
        args.grad_out, args.grad_x = grad.data_ptr(), grad_x.data_ptr()
        args.grad_offset, args.grad_weight = gradients.offset.data_ptr(), gradients.weight.data_ptr()
        args.grad_offset_stride, args.grad_offset_group = pixel_stride(gradients.offset), gradients.offset_group
        args.grad_weight_stride, args.grad_weight_group = pixel_stride(gradients.weight), gradients.weight_group
        library.call("internimage_window_backward", args, x.dtype, library.team_size(4 * window.points * grad.numel()))
    return grad_x


forward, backward = window_passes(run_forward, run_backward)


def _arguments(x: Tensor, points: PointTensors, out: Tensor, window: Window) -> WindowArgs:
    """The part of the arguments that both directions share."""
    n, height, width, channels = x.shape
    check_sides(height, width, row=width * pixel_stride(x))
    return WindowArgs(
        x=x.data_ptr(),
        offset=points.offset.data_ptr(),
        weight=points.weight.data_ptr(),
        batch=n,
        height=height,
        width=width,
        out_height=out.shape[1],
        out_width=out.shape[2],
        groups=window.groups,
        channels=channels // window.groups,
        points=window.points,
        x_stride=pixel_stride(x),
        offset_stride=pixel_stride(points.offset),
        offset_group=points.offset_group,
        weight_stride=pixel_stride(points.weight),
        weight_group=points.weight_group,
        **window.geometry(),
        remove_center=window.remove_center,
        softmax=window.softmax,
        offset_scale=window.offset_scale,
    )
