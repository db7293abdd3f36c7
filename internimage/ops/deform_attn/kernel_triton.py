"""ms_deform_attn on a GPU.

A tile is B rows, one query and head each, times the D channels of a head; heads vary fastest. Levels and points are
loops; positions, weights and sums are float32.
Shapes: N images, S pixels of all levels, M heads, D channels of a head, L levels, Q queries, P points of a level,
K = L * P, B rows of a tile.
"""

# Triton reads these functions itself; its constants and loops are not what a Python type checker expects.
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from internimage.ops.deform_attn.levels import Levels
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
from internimage.ops.sampling import check_sides

_KEY = ["heads", "D", "LEVELS", "POINTS", "SOFTMAX", "WIDE"]


@triton.jit
def _level(table, level, NORMALIZED: tl.constexpr):
    """Height, width and first pixel of a level, and the factors of its locations."""
    height, width = tl.load(table + 3 * level), tl.load(table + 3 * level + 1)
    scale_x, scale_y = 1.0, 1.0
    if NORMALIZED:
        scale_x, scale_y = width.to(tl.float32), height.to(tl.float32)
    return height, width, tl.load(table + 3 * level + 2), scale_x, scale_y


@triton.jit
def _position(location, exists, scale):
    """One coordinate (B) of a point: a whole pixel and the rest; the product is not rounded between the two."""
    value = tl.load(location, mask=exists, other=0.0).to(tl.float32)
    nearest = tl.floor(scale * value + 0.5)
    nearest = tl.where(tl.abs(nearest) < 4194304.0, nearest, 0.0)  # farther off, or NaN: all of it is the rest
    return nearest.to(tl.int32), tl.fma(value, tl.zeros_like(value) + scale, -nearest) - 0.5


@triton.autotune(configs=tile_configs(((1024, 4), (512, 2), (512, 4), (2048, 4), (2048, 8))), key=_KEY)
@triton.jit
def _forward_kernel(value, location, weight, table, out, row_count, queries, heads, pixels, value_stride,
                    LEVELS: tl.constexpr, POINTS: tl.constexpr, NORMALIZED: tl.constexpr, SOFTMAX: tl.constexpr,
                    D: tl.constexpr, D_PAD: tl.constexpr, K_PAD: tl.constexpr, WIDE: tl.constexpr,
                    TILE: tl.constexpr):  # fmt: skip
    BLOCK: tl.constexpr = TILE // D_PAD if TILE > D_PAD else 1
    K: tl.constexpr = LEVELS * POINTS
    row, exists, channel, valid = tile_rows(row_count, BLOCK, D, D_PAD, WIDE)
    head, image = row % heads, row // (heads * queries)
    base = (image * pixels * value_stride + head * D)[:, None] + channel[None, :]
    location += row * (2 * K)
    weight += row * K
    top, inverse = 0.0, 1.0
    if SOFTMAX:
        top, inverse = softmax_parts(weight, exists, K, K_PAD)
    total = tl.zeros([BLOCK, D_PAD], dtype=tl.float32)
    for level in range(LEVELS):
        height, width, start, scale_x, scale_y = _level(table, level, NORMALIZED)
        for k in tl.static_range(POINTS):
            p = level * POINTS + k
            whole_x, rest_x = _position(location + 2 * p, exists, scale_x)
            whole_y, rest_y = _position(location + 2 * p + 1, exists, scale_y)
            share = point_weight(weight + p, exists, top, inverse, SOFTMAX)
            total += gather_point(
                value, base, value_stride, whole_x, rest_x, whole_y, rest_y, height, width, start, share, valid, WIDE
            )
    at = (row * D)[:, None] + channel[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=valid)


@triton.autotune(
    configs=tile_configs(((512, 4), (256, 2), (1024, 4), (1024, 8))), key=[*_KEY, "FIXED"], reset_to_zero=["grad_value"]
)
@triton.jit
def _backward_kernel(value, location, weight, table, grad_out, grad_value, grad_location, grad_weight, limit, row_count,
                     queries, heads, pixels, value_stride, LEVELS: tl.constexpr, POINTS: tl.constexpr,
                     NORMALIZED: tl.constexpr, SOFTMAX: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
                     K_PAD: tl.constexpr, WIDE: tl.constexpr, FIXED: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    BLOCK: tl.constexpr = TILE // D_PAD if TILE > D_PAD else 1
    K: tl.constexpr = LEVELS * POINTS
    row, exists, channel, valid = tile_rows(row_count, BLOCK, D, D_PAD, WIDE)
    head, image = row % heads, row // (heads * queries)
    base = (image * pixels * value_stride + head * D)[:, None] + channel[None, :]
    grad = tl.load(grad_out + (row * D)[:, None] + channel[None, :], mask=valid, other=0.0).to(tl.float32)
    location += row * (2 * K)
    weight += row * K
    grad_location += row * (2 * K)
    grad_weight += row * K
    fraction = 1.0
    if FIXED:
        fraction = tl.load(limit)
    top, inverse, mean = 0.0, 1.0, tl.zeros([BLOCK], dtype=tl.float32)
    gradients = tl.zeros([BLOCK, K_PAD], dtype=tl.float32)  # of softmaxed weights; stored when all are known
    if SOFTMAX:
        top, inverse = softmax_parts(weight, exists, K, K_PAD)
    for level in range(LEVELS):
        height, width, start, scale_x, scale_y = _level(table, level, NORMALIZED)
        for k in range(POINTS):
            p = level * POINTS + k
            whole_x, rest_x = _position(location + 2 * p, exists, scale_x)
            whole_y, rest_y = _position(location + 2 * p + 1, exists, scale_y)
            share = point_weight(weight + p, exists, top, inverse, SOFTMAX)
            to_weight, to_x, to_y = scatter_point(
                value, base, value_stride, grad_value, base, value_stride, grad, whole_x, rest_x, whole_y, rest_y,
                height, width, start, share, valid, fraction, WIDE, FIXED)  # fmt: skip
            mean, gradients = store_point(
                grad_location, scale_x * to_x, scale_y * to_y, grad_weight, to_weight, share, mean, gradients, p,
                exists, K_PAD, SOFTMAX)  # fmt: skip
    if SOFTMAX:
        store_softmax_gradient(grad_weight, weight, gradients, mean, top, inverse, exists, K, K_PAD)


@functools.lru_cache(maxsize=128)
def _table(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Height, width and first pixel of every level on the device; kept, so that CUDA graphs find it in place."""
    rows, first = [], 0
    for height, width in zip(sizes[::2], sizes[1::2], strict=True):
        rows += [height, width, first]
        first += height * width
    return torch.tensor(rows, dtype=torch.int32, device=device)


def forward(value: Tensor, locations: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """(N, Q, M*D)."""
    n, queries, heads = locations.shape[:3]
    out = torch.empty(n, queries, heads * value.shape[3], dtype=value.dtype, device=value.device)
    if out.numel() == 0:
        return out
    value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    sizes, constants = _arguments(value, locations, levels)
    table = _table(tuple(levels.sizes), value.device)
    wide = needs_wide(value, locations, out)
    with device_of(value):
        _forward_kernel[grid(out, constants)](value, locations, weights, table, out, *sizes, **constants, WIDE=wide)
    return out


def backward(
    grad: Tensor, value: Tensor, locations: Tensor, weights: Tensor, levels: Levels
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights, all contiguous."""
    if grad.numel() == 0:
        return torch.zeros_like(value), torch.zeros_like(locations), torch.zeros_like(weights)
    grad, value = grad.contiguous(), value.contiguous()
    locations, weights = locations.contiguous(), weights.contiguous()
    grad_location, grad_weight = torch.empty_like(locations), torch.empty_like(weights)
    sizes, constants = _arguments(value, locations, levels)
    terms = locations.shape[1] * locations.shape[3] * locations.shape[4]
    gradient = GradientSum(value.shape, grad, lambda: 1.0 if levels.softmax else weights.abs().amax().double(), terms)
    table = _table(tuple(levels.sizes), value.device)
    wide = needs_wide(value, locations, grad)
    with device_of(value):
        _backward_kernel[grid(grad, constants)](
            *(value, locations, weights, table, grad, gradient.sum, grad_location, grad_weight, gradient.limit),
            *sizes,
            **constants,
            WIDE=wide,
            FIXED=gradient.fixed,
        )
    return gradient.result(value.dtype), grad_location, grad_weight


def _arguments(value: Tensor, locations: Tensor, levels: Levels) -> tuple[tuple[int, ...], dict[str, int | bool]]:
    """The sizes and the constants of both kernels; the tensors are contiguous."""
    n, pixels, heads, d = value.shape
    check_sides(*levels.sizes, pixels=pixels)
    queries, points = locations.shape[1], locations.shape[4]
    count = len(levels.shapes)
    constants: dict[str, int | bool] = {"LEVELS": count, "POINTS": points}
    constants |= {"NORMALIZED": levels.normalized, "SOFTMAX": levels.softmax}
    constants |= {"D": d, "D_PAD": next_power_of_two(d), "K_PAD": next_power_of_two(count * points)}
    return (n * queries * heads, queries, heads, pixels, heads * d), constants
