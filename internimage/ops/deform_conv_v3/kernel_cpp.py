"""dcnv3 on a CPU through the compiled kernels (kernel_cpp.cpp).

Shapes: N images, H W map, C channels, G groups, D = C / G, Ho Wo output map, K points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.ops.runtime import library
from internimage.ops.runtime.abi import WindowArgs
from internimage.ops.sampling import PointTensors, Window, check_sides, pixel_rows, pixel_stride


def missing_reason(device: str, dtype: torch.dtype) -> str | None:
    """Why the compiled kernels cannot run on tensors of this device type and dtype, or None when they can."""
    if device != "cpu":
        return f"the compiled kernels run on cpu tensors, given {device}"
    if dtype not in library.DATA_TYPES:
        return f"the compiled kernels support float32, float64, float16 and bfloat16, given {dtype}"
    return library.missing_reason()


def forward(x: Tensor, offset: Tensor, mask: Tensor, window: Window) -> Tensor:
    """(N, Ho, Wo, C); strided views whose channels lie side by side are read in place."""
    return run_forward(pixel_rows(x), PointTensors.separate(pixel_rows(offset), pixel_rows(mask), window), window)


def backward(grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor, window: Window) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, offset and mask, all contiguous."""
    x, offset, mask = pixel_rows(x), pixel_rows(offset), pixel_rows(mask)
    grad_offset = torch.empty_like(offset, memory_format=torch.contiguous_format)
    grad_mask = torch.empty_like(mask, memory_format=torch.contiguous_format)
    points, gradients = (PointTensors.separate(*both, window) for both in ((offset, mask), (grad_offset, grad_mask)))
    return run_backward(grad, x, points, gradients, window), grad_offset, grad_mask


def run_forward(x: Tensor, points: PointTensors, window: Window) -> Tensor:
    """(N, Ho, Wo, C)."""
    out = x.new_empty(*points.offset.shape[:3], x.shape[3])
    if out.numel():
        args = _arguments(x, points, out, window)
        args.out = out.data_ptr()
        library.call("internimage_window_forward", args)
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
        library.call("internimage_window_backward", args)
    return grad_x


def _arguments(x: Tensor, points: PointTensors, out: Tensor, window: Window) -> WindowArgs:
    """The part of the arguments that both directions share."""
    n, height, width, channels = x.shape
    check_sides(height, width, row=width * pixel_stride(x))
    work = 4 * window.points * out.numel()
    (kernel_h, kernel_w), (stride_h, stride_w) = window.kernel_size, window.stride
    (pad_h, pad_w), (dilation_h, dilation_w) = window.padding, window.dilation
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
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        stride_h=stride_h,
        stride_w=stride_w,
        pad_h=pad_h,
        pad_w=pad_w,
        dilation_h=dilation_h,
        dilation_w=dilation_w,
        remove_center=window.remove_center,
        softmax=window.softmax,
        data_type=library.DATA_TYPES[x.dtype],
        threads=library.team_size(work),
        offset_scale=window.offset_scale,
        start_team=library.start_team(),
    )
