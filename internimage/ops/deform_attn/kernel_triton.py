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
from internimage.ops.runtime.triton.launch import Settings, common_vector, is_real, launch, settings_of
from internimage.ops.runtime.triton.support import GradientSum, is_wide, next_power_of_two
from internimage.ops.sampling import check_sides

_SIZES = ("images", "rows", "heads", "pixels", "value_step")  # whose values make no other kernel


@triton.jit
def _level(table, level, stride, WIDE: tl.constexpr):
    """Height, width and first element of a level, and the factors of its locations."""
    row = table + 5 * level
    scale_y, scale_x = tl.load(row + 3).to(tl.float32), tl.load(row + 4).to(tl.float32)
    first = tl.load(row + 2)
    if WIDE:
        first = first.to(tl.int64)
    return tl.load(row), tl.load(row + 1), first * stride, scale_x, scale_y


@triton.jit
def _position(value, scale):
    """One coordinate (B) of a point: a whole pixel and the rest; the product is not rounded between the two."""
    nearest = tl.floor(scale * value + 0.5)
    nearest = tl.where(tl.abs(nearest) < 4194304.0, nearest, 0.0)  # farther off, or NaN: all of it is the rest
    return nearest.to(tl.int32), tl.fma(value, tl.zeros_like(value) + scale, -nearest) - 0.5


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=("location", "weight"))
def _forward_kernel(value, location, weight, table, out, images, rows, heads, pixels, value_step,
                    LEVELS: tl.constexpr, POINTS: tl.constexpr, SOFTMAX: tl.constexpr,
                    D: tl.constexpr, D_PAD: tl.constexpr, VECTOR: tl.constexpr, PAIRED: tl.constexpr,
                    WIDE: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    BLOCK: tl.constexpr = TILE // D_PAD if TILE > D_PAD else 1
    K: tl.constexpr = LEVELS * POINTS
    image, row, exists = tile_rows(images, rows, BLOCK, WIDE)
    _, head = divide(row, heads, WIDE)
    stride, first_row = value_step * VECTOR, image * rows
    value += image * pixels * stride
    location += first_row * (2 * K) + row * (2 * K)
    weight += first_row * K + row * K
    top, sum_of_weights = tl.zeros([BLOCK], dtype=tl.float32), tl.zeros([BLOCK], dtype=tl.float32)
    if SOFTMAX:
        top = largest_logit(weight, BLOCK, K)
    total = tl.zeros([BLOCK, D_PAD], dtype=tl.float32)
    for level in range(LEVELS):
        height, width, start, scale_x, scale_y = _level(table, level, stride, WIDE)
        base = head * D + start
        for k in tl.static_range(POINTS):
            p = level * POINTS + k
            x, y = load_pair(location + 2 * p, PAIRED)
            whole_x, rest_x = _position(x, scale_x)
            whole_y, rest_y = _position(y, scale_y)
            share = point_weight(weight + p, top, SOFTMAX)
            sum_of_weights += share
            total = gather_point(
                total, value, base, stride, whole_x, rest_x, whole_y, rest_y, height, width, share, D, D_PAD, WIDE
            )
    if SOFTMAX:
        total *= (1.0 / sum_of_weights)[:, None]
    channel = tl.arange(0, D_PAD)
    at = first_row * D + (row * D)[:, None] + channel[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=with_channels(exists, channel, D, D_PAD))


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=("location", "weight"))
def _backward_kernel(value, location, weight, table, grad_out, grad_value, grad_location, grad_weight, limit, images,
                     rows, heads, pixels, value_step, LEVELS: tl.constexpr, POINTS: tl.constexpr,
                     SOFTMAX: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
                     VECTOR: tl.constexpr, PAIRED: tl.constexpr, WIDE: tl.constexpr, FIXED: tl.constexpr,
                     K_PAD: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    BLOCK: tl.constexpr = TILE // D_PAD if TILE > D_PAD else 1
    K: tl.constexpr = LEVELS * POINTS
    image, row, exists = tile_rows(images, rows, BLOCK, WIDE)
    _, head = divide(row, heads, WIDE)
    stride, first_row = value_step * VECTOR, image * rows
    value += image * pixels * stride
    grad_value += image * pixels * stride
    location += first_row * (2 * K) + row * (2 * K)
    weight += first_row * K + row * K
    grad_location += first_row * (2 * K) + row * (2 * K)
    grad_weight += first_row * K + row * K
    channel = tl.arange(0, D_PAD)
    at = first_row * D + (row * D)[:, None] + channel[None, :]
    grad = tl.load(grad_out + at, mask=with_channels(exists, channel, D, D_PAD), other=0.0).to(tl.float32)
    units = 1.0
    if FIXED:
        units = tl.load(limit)
    top, inverse, mean = tl.zeros([BLOCK], dtype=tl.float32), 1.0, tl.zeros([BLOCK], dtype=tl.float32)
    grads_x = tl.zeros([BLOCK, K_PAD], dtype=tl.float32)
    grads_y, grads_weight = tl.zeros_like(grads_x), tl.zeros_like(grads_x)
    if SOFTMAX:
        top = largest_logit(weight, BLOCK, K)
        inverse = softmax_scale(weight, top, K)
    for level in range(LEVELS):
        height, width, start, scale_x, scale_y = _level(table, level, stride, WIDE)
        base = head * D + start
        for k in range(POINTS):
            p = level * POINTS + k
            x, y = load_pair(location + 2 * p, PAIRED)
            whole_x, rest_x = _position(x, scale_x)
            whole_y, rest_y = _position(y, scale_y)
            share = point_weight(weight + p, top, SOFTMAX) * inverse
            to_weight, to_x, to_y = scatter_point(
                value, base, stride, grad_value, stride, grad, whole_x, rest_x, whole_y, rest_y, height, width, share,
                exists, units, D, D_PAD, WIDE, FIXED)  # fmt: skip
            mean += share * to_weight
            here = tl.arange(0, K_PAD)[None, :] == p
            grads_x = tl.where(here, (scale_x * to_x)[:, None], grads_x)
            grads_y = tl.where(here, (scale_y * to_y)[:, None], grads_y)
            grads_weight = tl.where(here, to_weight[:, None], grads_weight)
    if SOFTMAX:
        grads_weight = softmax_gradient(weight, grads_weight, mean, top, inverse, K, K_PAD)
    store_points(grad_location, 2, grads_x, exists, K, K_PAD)
    store_points(grad_location + 1, 2, grads_y, exists, K, K_PAD)
    store_points(grad_weight, 1, grads_weight, exists, K, K_PAD)


def forward(value: Tensor, locations: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """(N, Q, M*D)."""
    n, queries, heads = locations.shape[:3]
    out = torch.empty(n, queries, heads * value.shape[3], dtype=value.dtype, device=value.device)
    if out.numel():
        value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
        sizes, constants, settings = _arguments("forward", value, locations, levels)
        others = locations, weights, _table(levels, value), out
        launch(_forward_kernel, settings, value, others, sizes, constants)
    return out


def backward(
    grad: Tensor, value: Tensor, locations: Tensor, weights: Tensor, levels: Levels
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights, all contiguous."""
    if not grad.numel():
        return torch.zeros_like(value), torch.zeros_like(locations), torch.zeros_like(weights)
    grad, value = grad.contiguous(), value.contiguous()
    locations, weights = locations.contiguous(), weights.contiguous()
    grad_location, grad_weight = torch.empty_like(locations), torch.empty_like(weights)
    terms = locations.shape[1] * locations.shape[3] * locations.shape[4]
    gradient = GradientSum(value.shape, grad, lambda: 1.0 if levels.softmax else weights.abs().amax().double(), terms)
    sizes, constants, settings = _arguments("backward", value, locations, levels)
    constants |= {"FIXED": gradient.fixed, "K_PAD": next_power_of_two(len(levels.shapes) * int(locations.shape[4]))}
    others = locations, weights, _table(levels, value), grad, gradient.sum, grad_location, grad_weight, gradient.limit
    launch(_backward_kernel, settings, value, others, sizes, constants)
    return gradient.result(value.dtype), grad_location, grad_weight


def _table(levels: Levels, value: Tensor) -> Tensor:
    """Height, width, first pixel and factors of locations of every level, on the device of `value`."""
    if is_real(value):
        return _kept_table(tuple(levels.sizes), levels.normalized, value.device)
    rows = [torch.scalar_tensor(number, dtype=torch.int32, device=value.device) for number in _level_rows(levels)]
    return torch.stack(rows)  # sizes may be symbols, which stay so


@functools.lru_cache(maxsize=128)
def _kept_table(sizes: tuple[int, ...], normalized: bool, device: torch.device) -> Tensor:
    """Kept, so that CUDA graphs find it in place."""
    return torch.tensor(_level_rows(Levels(sizes, normalized, softmax=False)), dtype=torch.int32, device=device)


def _level_rows(levels: Levels) -> list[int]:
    rows, first = [], 0
    for height, width in levels.shapes:
        rows += [height, width, first, *((height, width) if levels.normalized else (1, 1))]
        first += height * width
    return rows


def _arguments(
    direction: str, value: Tensor, locations: Tensor, levels: Levels
) -> tuple[tuple[int, ...], dict[str, int | bool], Settings]:
    """What both kernels take after their tensors, their constants, and their settings; the tensors are contiguous."""
    n, pixels, heads, d = value.shape
    check_sides(*levels.sizes, pixels=pixels)
    queries, points, count, d = locations.shape[1], int(locations.shape[4]), len(levels.shapes), int(d)
    vector = common_vector(value.element_size(), d)
    constants: dict[str, int | bool] = {
        "LEVELS": count,
        "POINTS": points,
        "SOFTMAX": levels.softmax,
        "D": d,
        "D_PAD": next_power_of_two(d),
        "VECTOR": vector,
        "PAIRED": locations.storage_offset() % 2 == 0,
        "WIDE": is_wide(heads * max(pixels * d, queries * max(d, 2 * count * points))),
    }
    sizes = n, queries * heads, heads, pixels, heads * d // vector
    return sizes, constants, settings_of("levels", direction, value.dtype, d, value.device)
