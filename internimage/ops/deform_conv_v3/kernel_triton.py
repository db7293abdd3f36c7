"""The window operators on a GPU: dcnv3, and dcnv4, which differs only in the strides of its offsets and weights.

A tile is B rows, one output pixel and group each, times the D channels of a group; groups vary fastest, so that the
rows of a tile read neighboring channels of the same pixels. Points are a loop; positions, weights and sums are float32.
Shapes: N images, H W map, C channels, G groups, D = C / G, Ho Wo output map, K points, B rows of a tile.
"""

# Triton reads these functions itself; its constants and loops are not what a Python type checker expects.
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from internimage.ops.runtime.triton.bilinear import (
    gather_point,
    grid,
    point_weight,
    scatter_point,
    softmax_parts,
    store_point,
    store_softmax_gradient,
    tile_configs,
    tile_rows,
)
from internimage.ops.runtime.triton.support import GradientSum, device_of, needs_wide, next_power_of_two
from internimage.ops.sampling import PointTensors, Window, check_sides, pixel_stride, window_passes

_KEY = ["groups", "D", "K", "KERNEL_H", "SOFTMAX", "WIDE", "out_width"]


@triton.jit
def _locate(p, columns, rows, offset, exists, scale, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
            STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PAD_H: tl.constexpr, PAD_W: tl.constexpr,
            DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, REMOVE_CENTER: tl.constexpr):  # fmt: skip
    """Where point p lies: a whole pixel (B) and the rest, x and y."""
    half_h: tl.constexpr = (DILATION_H * (KERNEL_H - 1)) // 2
    half_w: tl.constexpr = (DILATION_W * (KERNEL_W - 1)) // 2
    q = p
    if REMOVE_CENTER:
        center: tl.constexpr = (KERNEL_W // 2) * KERNEL_H + KERNEL_H // 2
        q = p + (p >= center)
    a, b = q // KERNEL_H, q % KERNEL_H  # width outer, height inner
    rest_x = (half_w - PAD_W) + scale * (a * DILATION_W - half_w)
    rest_y = (half_h - PAD_H) + scale * (b * DILATION_H - half_h)
    rest_x += scale * tl.load(offset + 2 * p, mask=exists, other=0.0).to(tl.float32)
    rest_y += scale * tl.load(offset + 2 * p + 1, mask=exists, other=0.0).to(tl.float32)
    return (columns * STRIDE_W).to(tl.int32), rest_x, (rows * STRIDE_H).to(tl.int32), rest_y


@triton.jit
def _sample(p, x, base, x_stride, columns, rows, height, width, offset, weight, exists, valid, top, inverse, scale,
            KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
            PAD_H: tl.constexpr, PAD_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
            REMOVE_CENTER: tl.constexpr, SOFTMAX: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """The sample (B, D) at point p, times its weight."""
    whole_x, rest_x, whole_y, rest_y = _locate(
        p, columns, rows, offset, exists, scale, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, PAD_H, PAD_W, DILATION_H,
        DILATION_W, REMOVE_CENTER)  # fmt: skip
    share = point_weight(weight + p, exists, top, inverse, SOFTMAX)
    return gather_point(x, base, x_stride, whole_x, rest_x, whole_y, rest_y, height, width, 0, share, valid, WIDE)


@triton.autotune(configs=tile_configs(((1024, 4), (512, 2), (512, 4), (1024, 2), (2048, 4), (2048, 8))), key=_KEY)
@triton.jit
def _forward_kernel(x, offset, weight, out, row_count, height, width, out_height, out_width, groups, x_stride,
                    offset_stride, offset_group, weight_stride, weight_group, scale, KERNEL_H: tl.constexpr,
                    KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PAD_H: tl.constexpr,
                    PAD_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
                    REMOVE_CENTER: tl.constexpr, SOFTMAX: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
                    K: tl.constexpr, K_PAD: tl.constexpr, WIDE: tl.constexpr, UNROLL: tl.constexpr,
                    TILE: tl.constexpr):  # fmt: skip
    BLOCK: tl.constexpr = TILE // D_PAD if TILE > D_PAD else 1
    row, exists, channel, valid = tile_rows(row_count, BLOCK, D, D_PAD, WIDE)
    pixel, group = row // groups, row % groups
    columns, rows = pixel % out_width, (pixel // out_width) % out_height
    image = pixel // (out_width * out_height)
    base = (image * height * width * x_stride + group * D)[:, None] + channel[None, :]
    offset += pixel * offset_stride + group * offset_group
    weight += pixel * weight_stride + group * weight_group

    top, inverse = 0.0, 1.0
    if SOFTMAX:
        top, inverse = softmax_parts(weight, exists, K, K_PAD)
    total = tl.zeros([BLOCK, D_PAD], dtype=tl.float32)
    if UNROLL:
        for p in tl.static_range(K):
            total += _sample(
                p, x, base, x_stride, columns, rows, height, width, offset, weight, exists, valid, top, inverse, scale,
                KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, PAD_H, PAD_W, DILATION_H, DILATION_W, REMOVE_CENTER, SOFTMAX,
                WIDE)  # fmt: skip
    else:
        for p in range(K):
            total += _sample(
                p, x, base, x_stride, columns, rows, height, width, offset, weight, exists, valid, top, inverse, scale,
                KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, PAD_H, PAD_W, DILATION_H, DILATION_W, REMOVE_CENTER, SOFTMAX,
                WIDE)  # fmt: skip
    at = (row * D)[:, None] + channel[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=valid)


@triton.autotune(
    configs=tile_configs(((512, 4), (256, 2), (512, 2), (1024, 4), (1024, 8))),
    key=[*_KEY, "FIXED"],
    reset_to_zero=["grad_x"],
)
@triton.jit
def _backward_kernel(x, offset, weight, grad_out, grad_x, grad_offset, grad_weight, limit, row_count, height, width,
                     out_height, out_width, groups, x_stride, grad_x_stride, offset_stride, offset_group,
                     weight_stride, weight_group, grad_offset_stride, grad_weight_stride, scale,
                     KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
                     PAD_H: tl.constexpr, PAD_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
                     REMOVE_CENTER: tl.constexpr, SOFTMAX: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
                     K: tl.constexpr, K_PAD: tl.constexpr, WIDE: tl.constexpr, FIXED: tl.constexpr,
                     TILE: tl.constexpr):  # fmt: skip
    BLOCK: tl.constexpr = TILE // D_PAD if TILE > D_PAD else 1
    row, exists, channel, valid = tile_rows(row_count, BLOCK, D, D_PAD, WIDE)
    pixel, group = row // groups, row % groups
    columns, rows = pixel % out_width, (pixel // out_width) % out_height
    image = pixel // (out_width * out_height)
    base = (image * height * width * x_stride + group * D)[:, None] + channel[None, :]
    grad_base = (image * height * width * grad_x_stride + group * D)[:, None] + channel[None, :]
    offset += pixel * offset_stride + group * offset_group
    weight += pixel * weight_stride + group * weight_group
    grad = tl.load(grad_out + (row * D)[:, None] + channel[None, :], mask=valid, other=0.0).to(tl.float32)
    fraction = 1.0
    if FIXED:
        fraction = tl.load(limit)

    top, inverse, mean = 0.0, 1.0, tl.zeros([BLOCK], dtype=tl.float32)
    gradients = tl.zeros([BLOCK, K_PAD], dtype=tl.float32)  # of softmaxed weights; stored when all are known
    if SOFTMAX:
        top, inverse = softmax_parts(weight, exists, K, K_PAD)
    grad_offset += pixel * grad_offset_stride + group * offset_group
    grad_weight += pixel * grad_weight_stride + group * weight_group
    for p in range(K):
        whole_x, rest_x, whole_y, rest_y = _locate(
            p, columns, rows, offset, exists, scale, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, PAD_H, PAD_W, DILATION_H,
            DILATION_W, REMOVE_CENTER)  # fmt: skip
        share = point_weight(weight + p, exists, top, inverse, SOFTMAX)
        to_weight, to_x, to_y = scatter_point(
            x, base, x_stride, grad_x, grad_base, grad_x_stride, grad, whole_x, rest_x, whole_y, rest_y, height, width,
            0, share, valid, fraction, WIDE, FIXED)  # fmt: skip
        mean, gradients = store_point(
            grad_offset, scale * to_x, scale * to_y, grad_weight, to_weight, share, mean, gradients, p, exists, K_PAD,
            SOFTMAX)  # fmt: skip
    if SOFTMAX:
        store_softmax_gradient(grad_weight, weight, gradients, mean, top, inverse, exists, K, K_PAD)


def run_forward(x: Tensor, points: PointTensors, window: Window) -> Tensor:
    """(N, Ho, Wo, C)."""
    offset, weight = points.offset, points.weight
    out = torch.empty(*offset.shape[:3], x.shape[3], dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out
    sizes, constants = _arguments(x, out, window)
    wide = needs_wide(x, offset, weight, out)
    with device_of(x):
        _forward_kernel[grid(out, constants)](
            *(x, offset, weight, out, *sizes, *_strides(x, points), window.offset_scale),
            **constants,
            WIDE=wide,
            UNROLL=window.points <= 9,
        )
    return out


def run_backward(grad: Tensor, x: Tensor, points: PointTensors, gradients: PointTensors, window: Window) -> Tensor:
    """Fill the gradients of offsets and weights, and return that of x."""
    if grad.numel() == 0:
        return torch.zeros_like(x, memory_format=torch.contiguous_format)
    grad, offset, weight = grad.contiguous(), points.offset, points.weight
    sizes, constants = _arguments(x, grad, window)
    terms = grad.shape[1] * grad.shape[2] * window.points
    gradient = GradientSum(x.shape, grad, lambda: 1.0 if window.softmax else weight.abs().amax().double(), terms)
    x_stride, *point_strides = _strides(x, points)
    strides = x_stride, x.shape[3], *point_strides, pixel_stride(gradients.offset), pixel_stride(gradients.weight)
    wide = needs_wide(x, offset, weight, grad, gradient.sum)
    with device_of(x):
        _backward_kernel[grid(grad, constants)](
            *(x, offset, weight, grad, gradient.sum, gradients.offset, gradients.weight, gradient.limit),
            *(*sizes, *strides, window.offset_scale),
            **constants,
            WIDE=wide,
            FIXED=gradient.fixed,
        )
    return gradient.result(x.dtype)


forward, backward = window_passes(run_forward, run_backward)


def _strides(x: Tensor, points: PointTensors) -> tuple[int, ...]:
    return (
        *(pixel_stride(x), pixel_stride(points.offset), points.offset_group),
        *(pixel_stride(points.weight), points.weight_group),
    )


def _arguments(x: Tensor, out: Tensor, window: Window) -> tuple[tuple[int, ...], dict[str, int | bool]]:
    """The sizes and the constants of both kernels."""
    _, height, width, channels = x.shape
    check_sides(height, width)
    d = channels // window.groups
    sizes = (out.numel() // d, height, width, out.shape[1], out.shape[2], window.groups)
    constants: dict[str, int | bool] = {name.upper(): value for name, value in window.geometry().items()}
    constants |= {"REMOVE_CENTER": window.remove_center, "SOFTMAX": window.softmax}
    constants |= {"D": d, "D_PAD": next_power_of_two(d), "K": window.points, "K_PAD": next_power_of_two(window.points)}
    return sizes, constants
