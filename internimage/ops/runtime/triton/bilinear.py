"""The core that the Triton kernels share: where a point lies, its four corners, and what flows back through them.

A point counts if it lies strictly within one pixel around the map; a corner outside of the map is not read and counts
as zero. A program works on one image, whose elements it numbers in 32 bits from a base of 64; WIDE kernels, for images
of more than 2**31 elements, number them in 64. Shapes: B rows of a tile (one output pixel and group each), D channels.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def tile_rows(images, rows, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """This program's image, which of its `rows` it computes (B), and whether they exist; the last stands for others."""
    first = tl.program_id(0)
    image = tl.program_id(1) + tl.program_id(2) * tl.num_programs(1)
    if WIDE:
        first = first.to(tl.int64)
    row = first * BLOCK + tl.arange(0, BLOCK)
    exists = (row < rows) & (image < images)
    return tl.minimum(image, images - 1).to(tl.int64), tl.minimum(row, rows - 1), exists


@triton.jit
def divide(value, by, WIDE: tl.constexpr):
    """Quotient and remainder (B) of non-negative integers; unsigned division takes fewer instructions."""
    quotient = value // by if WIDE else (value.to(tl.uint32) // tl.cast(by, tl.uint32)).to(tl.int32)
    return quotient, value - quotient * by


@triton.jit
def with_channels(mask, channel, D: tl.constexpr, D_PAD: tl.constexpr):
    """A mask of rows (B) as one of rows and channels: (B, 1) where all channels exist, else (B, D)."""
    mask = mask[:, None]
    if D != D_PAD:
        mask = mask & (channel < D)[None, :]
    return mask


@triton.jit
def load_pair(pointer, PAIRED: tl.constexpr):
    """Two neighbors in memory as float32 (B); PAIRED: they are aligned to their joint size, so one load takes both."""
    dtype: tl.constexpr = pointer.dtype.element_ty
    if not PAIRED:
        low, high = tl.load(pointer), tl.load(pointer + 1)
    elif dtype.primitive_bitwidth == 32:
        both = tl.load(pointer.to(tl.pointer_type(tl.int64)))
        low, high = both.to(tl.int32).to(dtype, bitcast=True), (both >> 32).to(tl.int32).to(dtype, bitcast=True)
    else:
        both = tl.load(pointer.to(tl.pointer_type(tl.int32)))
        low, high = both.to(tl.int16).to(dtype, bitcast=True), (both >> 16).to(tl.int16).to(dtype, bitcast=True)
    return low.to(tl.float32), high.to(tl.float32)


@triton.jit
def axis_corners(whole, rest, size):
    """One axis: the first corner's cell, whether each corner lies in the map, and their factors.

    The position is an integer plus a float of any size and sign, so that the fraction keeps its precision.
    """
    # Up to one pixel before the map nothing counts, neither does NaN; no accepted map reaches as far as 2**22.
    rest = tl.where(rest > -1.0 - whole.to(tl.float32), tl.minimum(rest, 4194304.0), -1073741824.0)
    floor = tl.floor(rest)
    cell = whole + floor.to(tl.int32)
    sides = tl.cast(size, tl.uint32)  # negative cells are larger than any: one comparison asks for both ends
    return cell, cell.to(tl.uint32) < sides, (cell + 1).to(tl.uint32) < sides, 1.0 - (rest - floor), rest - floor


@triton.jit
def point_corners(whole_x, rest_x, whole_y, rest_y, height, width, WIDE: tl.constexpr):
    """The first corner's pixel, pixels to that below, which corners exist, and the factors along x and along y (B)."""
    cell_x, has_left, has_right, left, right = axis_corners(whole_x, rest_x, width)
    cell_y, has_upper, has_lower, upper, lower = axis_corners(whole_y, rest_y, height)
    if WIDE:
        cell_y, width = cell_y.to(tl.int64), tl.cast(width, tl.int64)
    has = (has_upper & has_left, has_upper & has_right, has_lower & has_left, has_lower & has_right)
    return cell_y * width + cell_x, width, has, left, right, upper, lower


@triton.jit
def load_corner(pointer, has, channel, D: tl.constexpr, D_PAD: tl.constexpr):
    """A corner's channels (B, D) as float32, zeros where it does not exist."""
    return tl.load(pointer, mask=with_channels(has, channel, D, D_PAD), other=0.0).to(tl.float32)


@triton.jit
def gather_point(total, x, base, stride, whole_x, rest_x, whole_y, rest_y, height, width, weight, D: tl.constexpr,
                 D_PAD: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """`total` (B, D) and `weight` (B) times the bilinear sample of the map `x`.

    `base` (B) is where a row's channels begin in each pixel, `stride` the distance from one pixel to the next.
    """
    pixel, line, has, left, right, upper, lower = point_corners(whole_x, rest_x, whole_y, rest_y, height, width, WIDE)
    channel = tl.arange(0, D_PAD)
    first = x + (pixel * stride + base)[:, None] + channel[None, :]
    second = first + line * stride
    v00 = load_corner(first, has[0], channel, D, D_PAD)
    v01 = load_corner(first + stride, has[1], channel, D, D_PAD)
    v10 = load_corner(second, has[2], channel, D, D_PAD)
    v11 = load_corner(second + stride, has[3], channel, D, D_PAD)
    upper, lower = upper * weight, lower * weight
    total += (upper * left)[:, None] * v00
    total += (upper * right)[:, None] * v01
    total += (lower * left)[:, None] * v10
    total += (lower * right)[:, None] * v11
    return total


@triton.jit
def add_corner(pointer, factor, grad, has, exists, channel, limit, D: tl.constexpr, D_PAD: tl.constexpr,
               FIXED: tl.constexpr):  # fmt: skip
    """Add `factor` (B) times `grad` (B, D): float32, or integers in units of 1 / `limit`, whose sum has no order."""
    value, mask = factor[:, None] * grad, with_channels(has & exists, channel, D, D_PAD)
    if FIXED:
        tl.atomic_add(pointer, (value.to(tl.float64) * limit).to(tl.int64), mask=mask, sem="relaxed")
    else:
        tl.atomic_add(pointer, value, mask=mask, sem="relaxed")


@triton.jit
def scatter_point(x, base, stride, grad_x, grad_stride, grad, whole_x, rest_x, whole_y, rest_y, height, width, weight,
                  exists, limit, D: tl.constexpr, D_PAD: tl.constexpr, WIDE: tl.constexpr,
                  FIXED: tl.constexpr):  # fmt: skip
    """Backward of `gather_point`: adds to `grad_x` and returns the gradients (B) of weight and of both coordinates."""
    pixel, line, has, left, right, upper, lower = point_corners(whole_x, rest_x, whole_y, rest_y, height, width, WIDE)
    channel = tl.arange(0, D_PAD)
    first = x + (pixel * stride + base)[:, None] + channel[None, :]
    second = first + line * stride
    s00 = tl.sum(load_corner(first, has[0], channel, D, D_PAD) * grad, axis=1)
    s01 = tl.sum(load_corner(first + stride, has[1], channel, D, D_PAD) * grad, axis=1)
    s10 = tl.sum(load_corner(second, has[2], channel, D, D_PAD) * grad, axis=1)
    s11 = tl.sum(load_corner(second + stride, has[3], channel, D, D_PAD) * grad, axis=1)

    first = grad_x + (pixel * grad_stride + base)[:, None] + channel[None, :]
    second = first + line * grad_stride
    above, below = upper * weight, lower * weight
    add_corner(first, above * left, grad, has[0], exists, channel, limit, D, D_PAD, FIXED)
    add_corner(first + grad_stride, above * right, grad, has[1], exists, channel, limit, D, D_PAD, FIXED)
    add_corner(second, below * left, grad, has[2], exists, channel, limit, D, D_PAD, FIXED)
    add_corner(second + grad_stride, below * right, grad, has[3], exists, channel, limit, D, D_PAD, FIXED)
    # corners that do not exist were loaded as zeros
    to_weight = upper * (left * s00 + right * s01) + lower * (left * s10 + right * s11)
    to_x = above * (s01 - s00) + below * (s11 - s10)
    to_y = weight * (left * (s10 - s00) + right * (s11 - s01))
    return to_weight, to_x, to_y


@triton.jit
def largest_logit(weight, BLOCK: tl.constexpr, K: tl.constexpr):
    """The largest of each row's K logits (B), in units of log(2)."""
    top = tl.full([BLOCK], float("-inf"), dtype=tl.float32)
    for p in tl.static_range(K):
        top = tl.maximum(top, tl.load(weight + p).to(tl.float32))
    return top * LOG2_E


@triton.jit
def point_weight(weight, top, SOFTMAX: tl.constexpr):
    """The weight (B) of a point; of a softmax the exponential, yet to be divided by the sum of all."""
    value = tl.load(weight).to(tl.float32)
    if SOFTMAX:
        value = tl.exp2(value * LOG2_E - top)
    return value


@triton.jit
def softmax_scale(weight, top, K: tl.constexpr):
    """The reciprocal of the sum of exponentials of each row's K logits (B)."""
    total = tl.zeros_like(top)
    for p in tl.static_range(K):
        total += point_weight(weight + p, top, True)
    return 1.0 / total


@triton.jit
def softmax_gradient(weight, gradients, mean, top, scale, K: tl.constexpr, K_PAD: tl.constexpr):
    """Gradients (B, K) of softmaxed weights as those of the logits; `mean` (B) is their weighted sum."""
    point = tl.arange(0, K_PAD)[None, :]
    logits = tl.load(weight[:, None] + point, mask=point < K, other=0.0).to(tl.float32)
    return tl.exp2(logits * LOG2_E - top[:, None]) * scale[:, None] * (gradients - mean[:, None])


@triton.jit
def store_points(pointer, step: tl.constexpr, values, exists, K: tl.constexpr, K_PAD: tl.constexpr):
    """Store a number (B, K) of each point, `step` elements apart."""
    point = tl.arange(0, K_PAD)[None, :]
    mask = exists[:, None] & (point < K)
    tl.store(pointer[:, None] + step * point, values.to(pointer.dtype.element_ty), mask=mask)
