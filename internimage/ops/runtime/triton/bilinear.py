"""The core that the Triton kernels share: where a point lies, its four corners, and what flows back through them.

The rules are those of points.h: a point counts if it lies strictly within one pixel around the map; its cell is
clamped into the map and `step` is 0 where the second corner falls outside, so every address is valid and no pixel is
read that the definition does not read. Shapes: B rows of a tile (one output pixel and group each), D channels.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from internimage.ops.runtime.triton.support import interpreting


def tile_configs(shapes: tuple[tuple[int, int], ...]) -> list[triton.Config]:
    """(elements of a tile, warps) to choose from at the first call; the interpreter gets the first only."""
    chosen = shapes[:1] if interpreting() else shapes
    return [triton.Config({"TILE": tile}, num_warps=warps) for tile, warps in chosen]


def grid(out: Tensor, constants: dict[str, int | bool]):
    """Programs for the rows of `out`, given the chosen tile."""
    rows = out.numel() // constants["D"]
    return lambda chosen: (triton.cdiv(rows, max(1, chosen["TILE"] // constants["D_PAD"])),)


@triton.jit
def tile_rows(row_count, BLOCK: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, WIDE: tl.constexpr):
    """This program's rows (B), which of them exist, the channels (D), and which rows and channels (B, D) exist."""
    first = tl.program_id(0)
    if WIDE:
        first = first.to(tl.int64)
    row = first * BLOCK + tl.arange(0, BLOCK)
    exists = row < row_count
    channel = tl.arange(0, D_PAD)
    return row, exists, channel, exists[:, None] & (channel < D)[None, :]


@triton.jit
def axis_cell(whole, rest, size):
    """One axis: clamped cell, factors of its two corners, slope of the first, whether the second exists, and counts.

    The position is an integer plus a float of any size and sign, so that the fraction keeps its precision.
    """
    near = tl.abs(rest) < 4194304.0  # false for NaN; a point farther off is outside of every map that is accepted
    rest = tl.where(near, rest, 0.0)
    floor = tl.floor(rest)
    fraction = rest - floor
    cell = whole + floor.to(tl.int32)
    has_low = cell >= 0
    has_high = has_low & (cell < size - 1)
    counts = near & (cell < size) & (has_low | ((cell == -1) & (fraction > 0)))
    low = tl.where(has_low, 1.0 - fraction, fraction)  # in the cell before the map, the second corner comes first
    slope = tl.where(has_low, -1.0, 1.0)
    inside = tl.minimum(tl.maximum(cell, 0), size - 1)
    return inside, low, tl.where(has_high, fraction, 0.0), slope, has_high, counts


@triton.jit
def corner_values(x, at, right, down, valid):
    """The four corners as float32 (B, D); `at` (B, D) is the first one's address, `right` and `down` (B, 1) lead on."""
    v00 = tl.load(x + at, mask=valid, other=0.0).to(tl.float32)
    v01 = tl.load(x + at + right, mask=valid, other=0.0).to(tl.float32)
    v10 = tl.load(x + at + down, mask=valid, other=0.0).to(tl.float32)
    v11 = tl.load(x + at + down + right, mask=valid, other=0.0).to(tl.float32)
    return v00, v01, v10, v11


@triton.jit
def gather_point(
    x, base, stride, whole_x, rest_x, whole_y, rest_y, height, width, start, weight, valid, WIDE: tl.constexpr
):
    """`weight` (B) times the bilinear sample (B, D) of each row's map.

    `base` (B, D) is the address of the row's channels in pixel 0, `start` the first pixel of the map, `valid` (B, D)
    which rows and channels exist.
    """
    cell_x, low_x, high_x, _, has_x, counts_x = axis_cell(whole_x, rest_x, width)
    cell_y, low_y, high_y, _, has_y, counts_y = axis_cell(whole_y, rest_y, height)
    counts = counts_x & counts_y
    index = start + cell_y * width + cell_x
    # products, not selections: the compiler then knows them to be multiples of the stride and keeps loads wide
    right = has_x.to(tl.int32) * stride
    down = has_y.to(tl.int32) * width * stride
    if WIDE:
        index = index.to(tl.int64)
    v00, v01, v10, v11 = corner_values(
        x, base + (index * stride)[:, None], right[:, None], down[:, None], valid & counts[:, None]
    )
    top = low_x[:, None] * v00 + high_x[:, None] * v01
    bottom = low_x[:, None] * v10 + high_x[:, None] * v11
    return (weight * low_y)[:, None] * top + (weight * high_y)[:, None] * bottom


@triton.jit
def add_corner(grad_x, at, value, valid, limit, FIXED: tl.constexpr):
    """Add (B, D) values to grad_x: float32, or integers in units of 1 / `limit`, whose sum has no order."""
    if FIXED:
        tl.atomic_add(grad_x + at, (value.to(tl.float64) * limit).to(tl.int64), mask=valid, sem="relaxed")
    else:
        tl.atomic_add(grad_x + at, value, mask=valid, sem="relaxed")


@triton.jit
def scatter_point(x, base, stride, grad_x, grad_base, grad_stride, grad, whole_x, rest_x, whole_y, rest_y, height,
                  width, start, weight, valid, limit, WIDE: tl.constexpr, FIXED: tl.constexpr):  # fmt: skip
    """Backward of `gather_point`: adds to grad_x and returns the gradients (B) of weight and of both coordinates."""
    cell_x, low_x, high_x, slope_x, has_x, counts_x = axis_cell(whole_x, rest_x, width)
    cell_y, low_y, high_y, slope_y, has_y, counts_y = axis_cell(whole_y, rest_y, height)
    counts = counts_x & counts_y
    index = start + cell_y * width + cell_x
    step_x = has_x.to(tl.int32)
    step_y = tl.where(has_y, width, 0)
    if WIDE:
        index = index.to(tl.int64)
    valid = valid & counts[:, None]
    right, down = (step_x * stride)[:, None], (step_y * stride)[:, None]
    v00, v01, v10, v11 = corner_values(x, base + (index * stride)[:, None], right, down, valid)

    at = grad_base + (index * grad_stride)[:, None]
    right, down = (step_x * grad_stride)[:, None], (step_y * grad_stride)[:, None]
    shared = weight[:, None] * grad
    beside, below = valid & has_x[:, None], valid & has_y[:, None]
    add_corner(grad_x, at, (low_y * low_x)[:, None] * shared, valid, limit, FIXED)
    add_corner(grad_x, at + right, (low_y * high_x)[:, None] * shared, beside, limit, FIXED)
    add_corner(grad_x, at + down, (high_y * low_x)[:, None] * shared, below, limit, FIXED)
    add_corner(grad_x, at + down + right, (high_y * high_x)[:, None] * shared, beside & has_y[:, None], limit, FIXED)

    top = low_x[:, None] * v00 + high_x[:, None] * v01
    bottom = low_x[:, None] * v10 + high_x[:, None] * v11
    slope_x, slope_y = slope_x[:, None], slope_y[:, None]
    next_x, next_y = step_x.to(tl.float32)[:, None], has_y.to(tl.float32)[:, None]
    along_x = low_y[:, None] * (slope_x * v00 + next_x * v01) + high_y[:, None] * (slope_x * v10 + next_x * v11)
    along_y = slope_y * top + next_y * bottom
    value = low_y[:, None] * top + high_y[:, None] * bottom
    # the corners of a row that does not count were loaded as zeros, so its gradients are zero
    return (
        tl.sum(grad * value, axis=1),
        weight * tl.sum(grad * along_x, axis=1),
        weight * tl.sum(grad * along_y, axis=1),
    )


@triton.jit
def softmax_parts(weight, exists, K: tl.constexpr, K_PAD: tl.constexpr):
    """Largest logit and reciprocal of the sum of exponentials of each row's K logits at `weight` (B)."""
    columns = tl.arange(0, K_PAD)
    real = exists[:, None] & (columns[None, :] < K)
    logits = tl.load(weight[:, None] + columns[None, :], mask=real, other=float("-inf")).to(tl.float32)
    top = tl.where(exists, tl.max(logits, axis=1), 0.0)
    total = tl.sum(tl.exp(logits - top[:, None]), axis=1)
    return top, 1.0 / tl.where(exists, total, 1.0)


@triton.jit
def point_weight(weight, exists, top, scale, SOFTMAX: tl.constexpr):
    """The weight (B) of one point, given `softmax_parts` of its row."""
    value = tl.load(weight, mask=exists, other=0.0).to(tl.float32)
    if SOFTMAX:
        value = tl.exp(value - top) * scale
    return value


@triton.jit
def store_point(
    grad_place, to_x, to_y, grad_weight, to_weight, weight, mean, gradients, p, exists, K_PAD: tl.constexpr,
    SOFTMAX: tl.constexpr
):  # fmt: skip
    """Store the gradients (B) of point p, but keep that of a softmaxed weight in `mean` (B) and `gradients` (B, K)."""
    tl.store(grad_place + 2 * p, to_x.to(grad_place.dtype.element_ty), mask=exists)
    tl.store(grad_place + 2 * p + 1, to_y.to(grad_place.dtype.element_ty), mask=exists)
    if SOFTMAX:
        mean += weight * to_weight
        gradients = tl.where(tl.arange(0, K_PAD)[None, :] == p, to_weight[:, None], gradients)
    else:
        tl.store(grad_weight + p, to_weight.to(grad_weight.dtype.element_ty), mask=exists)
    return mean, gradients


@triton.jit
def store_softmax_gradient(
    grad_weight, weight, gradients, mean, top, scale, exists, K: tl.constexpr, K_PAD: tl.constexpr
):
    """Turn gradients (B, K) of softmaxed weights into those of the logits; `mean` (B) is their weighted sum."""
    columns = tl.arange(0, K_PAD)
    real = exists[:, None] & (columns[None, :] < K)
    logits = tl.load(weight[:, None] + columns[None, :], mask=real, other=float("-inf")).to(tl.float32)
    shares = tl.exp(logits - top[:, None]) * scale[:, None]
    value = shares * (gradients - mean[:, None])
    tl.store(grad_weight[:, None] + columns[None, :], value.to(grad_weight.dtype.element_ty), mask=real)
