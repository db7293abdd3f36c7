"""The window operators on a GPU: dcnv3, and dcnv4, which differs only in the strides of its offsets and weights.

A tile is B rows, one output pixel and group each, times the D channels of a group; groups vary fastest, so that the
rows of a tile read neighboring channels of the same pixels. Points are a loop; positions, weights and sums are float32.
Shapes: N images, H W map, C channels, G groups, D = C / G, Ho Wo output map, K points, B rows of a tile.
"""

# Triton reads these functions itself; its constants and loops are not what a Python type checker expects.
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from internimage.ops.runtime.triton.bilinear import (
    divide,
    gather_point,
    largest_logit,
    load_pair,
    point_weight,
    scatter_point,
    softmax_gradient,
    softmax_scale,
    store_points,
    tile_rows,
    with_channels,
)
from internimage.ops.runtime.triton.launch import common_vector, is_real, launch, settings_of
from internimage.ops.runtime.triton.support import GradientSum, is_wide, next_power_of_two
from internimage.ops.sampling import PointTensors, Window, check_sides, pixel_stride, window_passes

# Of these, values make no other kernel, and alignment none of the points.
_SIZES = ("images", "rows", "height", "width", "out_height", "out_width", "groups", "x_step", "offset_stride",
          "offset_group", "weight_stride", "weight_group", "stride_x", "stride_y")  # fmt: skip
_GRADIENT_SIZES = (*_SIZES, "grad_offset_stride", "grad_weight_stride")


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=("offset", "weight"))
def _forward_kernel(x, offset, weight, out, images, rows, height, width, out_height, out_width, groups, x_step,
                    offset_stride, offset_group, weight_stride, weight_group, stride_x, stride_y, origin_x, origin_y,
                    spread_x, spread_y, scale, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
                    REMOVE_CENTER: tl.constexpr, SOFTMAX: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
                    VECTOR: tl.constexpr, PAIRED: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    """The output of a tile of rows; arguments in `_arguments`."""
    BLOCK: tl.constexpr = TILE // D_PAD if TILE > D_PAD else 1
    CENTER: tl.constexpr = (KERNEL_W // 2) * KERNEL_H + KERNEL_H // 2
    K: tl.constexpr = KERNEL_H * KERNEL_W - REMOVE_CENTER
    image, row, exists = tile_rows(images, rows, BLOCK, WIDE)
    pixel, group = divide(row, groups, WIDE)
    line, column = divide(pixel, out_width, WIDE)
    whole_x, whole_y = (column * stride_x).to(tl.int32), (line * stride_y).to(tl.int32)
    stride, first_pixel = x_step * VECTOR, image * out_height * out_width
    x += image * height * width * stride
    offset += first_pixel * offset_stride + (pixel * offset_stride + group * offset_group)
    weight += first_pixel * weight_stride + (pixel * weight_stride + group * weight_group)
    top, sum_of_weights = tl.zeros([BLOCK], dtype=tl.float32), tl.zeros([BLOCK], dtype=tl.float32)
    if SOFTMAX:
        top = largest_logit(weight, BLOCK, K)
    total = tl.zeros([BLOCK, D_PAD], dtype=tl.float32)
    for a in range(KERNEL_W):  # width outer, height inner
        for b in tl.static_range(KERNEL_H):
            p = a * KERNEL_H + b
            if not REMOVE_CENTER or p != CENTER:
                if REMOVE_CENTER:
                    p -= p > CENTER
                shift_x, shift_y = load_pair(offset + 2 * p, PAIRED)
                share = point_weight(weight + p, top, SOFTMAX)
                sum_of_weights += share
                total = gather_point(
                    total, x, group * D, stride, whole_x, (origin_x + spread_x * a) + scale * shift_x, whole_y,
                    (origin_y + spread_y * b) + scale * shift_y, height, width, share, D, D_PAD, WIDE)  # fmt: skip
    if SOFTMAX:
        total *= (1.0 / sum_of_weights)[:, None]
    channel = tl.arange(0, D_PAD)
    at = first_pixel * groups * D + (row * D)[:, None] + channel[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=with_channels(exists, channel, D, D_PAD))


@triton.jit(do_not_specialize=_GRADIENT_SIZES, do_not_specialize_on_alignment=("offset", "weight", "grad_weight"))
def _backward_kernel(x, offset, weight, grad_out, grad_x, grad_offset, grad_weight, limit, images, rows, height, width,
                     out_height, out_width, groups, x_step, offset_stride, offset_group, weight_stride, weight_group,
                     stride_x, stride_y, origin_x, origin_y, spread_x, spread_y, scale, grad_offset_stride,
                     grad_weight_stride, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
                     REMOVE_CENTER: tl.constexpr, SOFTMAX: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
                     VECTOR: tl.constexpr, PAIRED: tl.constexpr, WIDE: tl.constexpr, FIXED: tl.constexpr,
                     K_PAD: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    """All gradients of a tile of rows; that of `x` is added to contiguous `grad_x`."""
    BLOCK: tl.constexpr = TILE // D_PAD if TILE > D_PAD else 1
    CENTER: tl.constexpr = (KERNEL_W // 2) * KERNEL_H + KERNEL_H // 2
    K: tl.constexpr = KERNEL_H * KERNEL_W - REMOVE_CENTER
    image, row, exists = tile_rows(images, rows, BLOCK, WIDE)
    pixel, group = divide(row, groups, WIDE)
    line, column = divide(pixel, out_width, WIDE)
    whole_x, whole_y = (column * stride_x).to(tl.int32), (line * stride_y).to(tl.int32)
    stride, first_pixel, channels = x_step * VECTOR, image * out_height * out_width, groups * D
    x += image * height * width * stride
    grad_x += image * height * width * channels
    offset += first_pixel * offset_stride + (pixel * offset_stride + group * offset_group)
    weight += first_pixel * weight_stride + (pixel * weight_stride + group * weight_group)
    grad_offset += first_pixel * grad_offset_stride + (pixel * grad_offset_stride + group * offset_group)
    grad_weight += first_pixel * grad_weight_stride + (pixel * grad_weight_stride + group * weight_group)
    channel = tl.arange(0, D_PAD)
    at = first_pixel * channels + (row * D)[:, None] + channel[None, :]
    grad = tl.load(grad_out + at, mask=with_channels(exists, channel, D, D_PAD), other=0.0).to(tl.float32)
    units = 1.0
    if FIXED:
        units = tl.load(limit)
    top, inverse, mean = tl.zeros([BLOCK], dtype=tl.float32), 1.0, tl.zeros([BLOCK], dtype=tl.float32)
    # Kept until all points are known: stored one by one they would change threads in every step.
    grads_x = tl.zeros([BLOCK, K_PAD], dtype=tl.float32)
    grads_y, grads_weight = tl.zeros_like(grads_x), tl.zeros_like(grads_x)
    if SOFTMAX:
        top = largest_logit(weight, BLOCK, K)
        inverse = softmax_scale(weight, top, K)
    for a in range(KERNEL_W):
        for b in range(KERNEL_H):
            p = a * KERNEL_H + b
            if not REMOVE_CENTER or p != CENTER:
                if REMOVE_CENTER:
                    p -= p > CENTER
                shift_x, shift_y = load_pair(offset + 2 * p, PAIRED)
                share = point_weight(weight + p, top, SOFTMAX) * inverse
                to_weight, to_x, to_y = scatter_point(
                    x, group * D, stride, grad_x, channels, grad, whole_x, (origin_x + spread_x * a) + scale * shift_x,
                    whole_y, (origin_y + spread_y * b) + scale * shift_y, height, width, share, exists, units, D, D_PAD,
                    WIDE, FIXED)  # fmt: skip
                mean += share * to_weight
                here = tl.arange(0, K_PAD)[None, :] == p
                grads_x = tl.where(here, to_x[:, None], grads_x)
                grads_y = tl.where(here, to_y[:, None], grads_y)
                grads_weight = tl.where(here, to_weight[:, None], grads_weight)
    if SOFTMAX:
        grads_weight = softmax_gradient(weight, grads_weight, mean, top, inverse, K, K_PAD)
    store_points(grad_offset, 2, scale * grads_x, exists, K, K_PAD)
    store_points(grad_offset + 1, 2, scale * grads_y, exists, K, K_PAD)
    store_points(grad_weight, 1, grads_weight, exists, K, K_PAD)


def run_forward(x: Tensor, points: PointTensors, window: Window) -> Tensor:
    """(N, Ho, Wo, C)."""
    out = torch.empty(*points.offset.shape[:3], x.shape[3], dtype=x.dtype, device=x.device)
    if out.numel():
        sizes, constants = _arguments(x, points, window)
        settings = settings_of("window", "forward", x.dtype, constants["D"], x.device)
        launch(_forward_kernel, settings, x, (points.offset, points.weight, out), sizes, constants)
    return out


def run_backward(grad: Tensor, x: Tensor, points: PointTensors, gradients: PointTensors, window: Window) -> Tensor:
    """Fill the gradients of offsets and weights, and return that of x."""
    if not grad.numel():
        return torch.zeros_like(x, memory_format=torch.contiguous_format)
    grad, (offset, _, weight, _) = grad.contiguous(), points
    terms = grad.shape[1] * grad.shape[2] * window.points
    gradient = GradientSum(x.shape, grad, lambda: 1.0 if window.softmax else weight.abs().amax().double(), terms)
    sizes, constants = _arguments(x, points, window)
    settings = settings_of("window", "backward", x.dtype, constants["D"], x.device)
    others = offset, weight, grad, gradient.sum, gradients.offset, gradients.weight, gradient.limit
    sizes = *sizes, pixel_stride(gradients.offset), pixel_stride(gradients.weight)
    constants = constants | {"FIXED": gradient.fixed, "K_PAD": next_power_of_two(window.points)}
    launch(_backward_kernel, settings, x, others, sizes, constants)
    return gradient.result(x.dtype)


forward, backward = window_passes(run_forward, run_backward)


def _arguments(x: Tensor, points: PointTensors, window: Window) -> tuple[tuple[float, ...], dict[str, int | bool]]:
    """What both kernels take after their tensors, and their constants; not to be changed."""
    strides = pixel_stride(x), pixel_stride(points.offset), pixel_stride(points.weight)
    prepare = _prepared if is_real(x) else _prepared.__wrapped__
    output_size, parity = points.offset.shape[1:3], points.offset.storage_offset() % 2
    return prepare(
        window, x.shape, output_size, x.element_size(), strides, points.offset_group, points.weight_group, parity
    )


@functools.lru_cache(maxsize=4096)
def _prepared(
    window: Window,
    shape: tuple[int, ...],
    output_size: tuple[int, int],
    itemsize: int,
    strides: tuple[int, int, int],
    offset_group: int,
    weight_group: int,
    parity: int,
) -> tuple[tuple[float, ...], dict[str, int | bool]]:
    """Kept for each shape: the host has less time for a launch than this takes."""
    (n, height, width, channels), (out_height, out_width) = shape, output_size
    check_sides(height, width)
    # Of a compiler's symbols those become numbers that are constants of the kernel; sizes stay as they are.
    d, scale = int(channels) // window.groups, float(window.offset_scale)
    stride, offset_stride, weight_stride = strides
    vector = common_vector(itemsize, d, stride)
    (kernel_h, kernel_w), (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w) = window[:4]
    half_h, half_w = dilation_h * (kernel_h - 1) // 2, dilation_w * (kernel_w - 1) // 2
    sizes = (
        *(n, out_height * out_width * window.groups, height, width, out_height, out_width, window.groups),
        *(stride // vector, offset_stride, offset_group, weight_stride, weight_group),
        *(stride_w, stride_h, half_w - pad_w - scale * half_w, half_h - pad_h - scale * half_h),
        *(scale * dilation_w, scale * dilation_h, scale),
    )
    constants: dict[str, int | bool] = {
        "KERNEL_H": kernel_h,
        "KERNEL_W": kernel_w,
        "REMOVE_CENTER": window.remove_center,
        "SOFTMAX": window.softmax,
        "D": d,
        "D_PAD": next_power_of_two(d),
        "VECTOR": vector,
        "PAIRED": all(count % 2 == 0 for count in (parity, offset_stride, offset_group)),
        "WIDE": is_wide(height * width * stride, out_height * out_width * max(channels, offset_stride, weight_stride)),
    }
    return sizes, constants
