"""What stands between the linear layers of a block on a GPU: norms, scales, residual sums, GELU, and their gradients.

A program holds whole rows, several at once where they are short, so that a row is read and written once. Statistics and
sums are float32 in every dtype. The gradients of parameters are summed by a fixed number of programs, each over its
rows, and then over the programs: the order depends on the sizes alone. Row counts and pointers are ordinary arguments;
one variant is compiled for each width, set of dtypes and set of steps (an argument that is None is a step left out).
Shapes: ... any leading sizes, C channels of a row, P the next power of two, B rows of a tile; N images, H W map.
"""

# Triton reads these functions itself; its constants and loops are not what a Python type checker expects.
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from internimage.ops.runtime.triton import launch
from internimage.ops.runtime.triton.support import device_of, next_power_of_two

# Measured on an H100 and an H200 up to P = 512, in half precision.
FORWARD_WARPS = {64: 2, 128: 4, 256: 4, 512: 1, 1024: 1, 2048: 4}  # of 32 threads, by P
TILE, GELU_BACKWARD_TILE = 4096, 2048  # bytes of the rows of a program
PROGRAMS, GELU_PROGRAMS = (
    264,
    1056,
)  # that share the rows of a backward pass: 2 and 8 for each multiprocessor of an H100
COLUMNS = 256  # of a tile of GELU
_SIZES = ["row_count", "image_rows"]


@triton.jit
def _tile(first, row_count, C: tl.constexpr, P: tl.constexpr, B: tl.constexpr):
    """Offsets (B, P) in a tile, its rows (B), its channels (P), and which of its elements exist (B, P)."""
    row, channel = tl.arange(0, B), tl.arange(0, P)
    exists = first + row < row_count
    return (row * C)[:, None] + channel[None, :], row, channel, exists[:, None] & (channel < C)[None, :]


@triton.jit
def _load(pointer, at, inside):
    return tl.load(pointer + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _standardize(v, inside, eps, C: tl.constexpr):
    """Rows (B, P) with mean 0 and variance 1, zeros where nothing is, and the factors (B, 1) that did it."""
    v = tl.where(inside, v - (tl.sum(v, axis=1) / C)[:, None], 0.0)
    factor = tl.rsqrt(tl.sum(v * v, axis=1) / C + eps)[:, None]
    return v * factor, factor


@triton.jit
def _norm_gradient(grad, standard, factor, weight, C: tl.constexpr):
    """The gradient (B, P) of what `_standardize` was given, for a gradient of its result times `weight` (1, P)."""
    grad *= weight
    along = tl.sum(grad * standard, axis=1) / C
    return factor * (grad - (tl.sum(grad, axis=1) / C)[:, None] - standard * along[:, None])


@triton.jit
def _gelu(v):
    return 0.5 * v * (1.0 + tl.erf(v * 0.7071067811865476))


@triton.jit
def _gelu_slope(v):
    return 0.5 * (1.0 + tl.erf(v * 0.7071067811865476)) + v * tl.exp(-0.5 * v * v) * 0.3989422804014327


@triton.jit(do_not_specialize=_SIZES)
def _rows_kernel(y, shift, shortcut, keep, gamma, weight, bias, next_weight, next_bias, total, normed, row_count,
                 image_rows, eps, GELU: tl.constexpr, C: tl.constexpr, P: tl.constexpr, B: tl.constexpr):  # fmt: skip
    """Store shortcut + keep * gamma * GELU(norm(y + shift)) as `total` and next_norm of it as `normed`."""
    first = tl.program_id(0).to(tl.int64) * B
    at, row, channel, inside = _tile(first, row_count, C, P, B)
    real, base = channel < C, first * C
    v = _load(y + base, at, inside)
    if shift is not None:
        v += _load(shift, channel, real)[None, :]
    if weight is not None:
        v, _ = _standardize(v, inside, eps, C)
        v = v * _load(weight, channel, real)[None, :] + _load(bias, channel, real)[None, :]
    if GELU:
        v = _gelu(v)
    if gamma is not None:
        v *= _load(gamma, channel, real)[None, :]
    if keep is not None:
        image = (first + row) // image_rows
        v *= _load(keep, image, first + row < row_count)[:, None]
    if shortcut is not None:
        v += _load(shortcut + base, at, inside)
    rounded = v.to(total.dtype.element_ty)
    tl.store(total + base + at, rounded, mask=inside)
    if normed is not None:
        v, _ = _standardize(rounded.to(tl.float32), inside, eps, C)
        v = v * _load(next_weight, channel, real)[None, :] + _load(next_bias, channel, real)[None, :]
        tl.store(normed + base + at, v.to(normed.dtype.element_ty), mask=inside)


@triton.jit
def _store_sum(sums, slot, v, channel, C: tl.constexpr):
    """Store the column sums of (B, P) as this program's part of one parameter's gradient."""
    tl.store(sums + slot * C + channel, tl.sum(v, axis=0), mask=channel < C)


@triton.jit(do_not_specialize=_SIZES)
def _rows_backward_kernel(y, shift, total, keep, gamma, weight, bias, next_weight, grad_total, grad_normed, grad_y,
                          grad_shortcut, sums, row_count, image_rows, eps, GELU: tl.constexpr, SLOTS: tl.constexpr,
                          C: tl.constexpr, P: tl.constexpr, B: tl.constexpr):  # fmt: skip
    """Store the gradients of y and shortcut, and sums (programs, SLOTS, C) of those of shift, gamma and norms."""
    channel = tl.arange(0, P)
    real = channel < C
    of_gamma = tl.zeros([B, P], tl.float32)
    of_shift, of_weight, of_bias, of_next_weight, of_next_bias = of_gamma, of_gamma, of_gamma, of_gamma, of_gamma
    wide = tl.zeros([], tl.int64)  # offsets of elements pass 2**31
    for tile in range(tl.program_id(0), tl.cdiv(row_count, B), tl.num_programs(0)):
        first = wide + tile * B
        at, row, channel, inside = _tile(first, row_count, C, P, B)
        base = first * C
        grad = _load(grad_total + base, at, inside)
        if grad_normed is not None:
            standard, factor = _standardize(_load(total + base, at, inside), inside, eps, C)
            above = _load(grad_normed + base, at, inside)
            of_next_weight += above * standard
            of_next_bias += above
            grad += _norm_gradient(above, standard, factor, _load(next_weight, channel, real)[None, :], C)
            grad = tl.where(inside, grad, 0.0)
        if grad_shortcut is not None:
            tl.store(grad_shortcut + base + at, grad.to(grad_shortcut.dtype.element_ty), mask=inside)
        if keep is not None:
            image = (first + row) // image_rows
            grad *= _load(keep, image, first + row < row_count)[:, None]
        if (weight is not None) | (gamma is not None):
            v = _load(y + base, at, inside)
            if shift is not None:
                v += _load(shift, channel, real)[None, :]
        if weight is not None:
            standard, factor = _standardize(v, inside, eps, C)
            scale = _load(weight, channel, real)[None, :]
            v = standard * scale + _load(bias, channel, real)[None, :]
        if gamma is not None:
            of_gamma += grad * v
            grad *= _load(gamma, channel, real)[None, :]
        if GELU:
            grad *= _gelu_slope(v)
        if weight is not None:
            of_weight += grad * standard
            of_bias += grad
            grad = _norm_gradient(grad, standard, factor, scale, C)
        of_shift += grad
        tl.store(grad_y + base + at, grad.to(grad_y.dtype.element_ty), mask=inside)
    sums += tl.program_id(0) * SLOTS * C
    of_scale: tl.constexpr = 1 if shift is not None else 0
    of_norm: tl.constexpr = of_scale + (1 if gamma is not None else 0)
    if shift is not None:
        _store_sum(sums, 0, of_shift, channel, C)
    if gamma is not None:
        _store_sum(sums, of_scale, of_gamma, channel, C)
    if weight is not None:
        _store_sum(sums, of_norm, of_weight, channel, C)
        _store_sum(sums, of_norm + 1, of_bias, channel, C)
    if grad_normed is not None:
        _store_sum(sums, SLOTS - 2, of_next_weight, channel, C)
        _store_sum(sums, SLOTS - 1, of_next_bias, channel, C)


@triton.jit(do_not_specialize=["row_count"])
def _gelu_kernel(y, bias, out, row_count, C: tl.constexpr, COLUMNS: tl.constexpr, B: tl.constexpr):
    """Store GELU(y + bias) as `out`; the second axis of the grid is blocks of columns."""
    first = tl.program_id(0).to(tl.int64) * B
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    at = (tl.arange(0, B) * C)[:, None] + channel[None, :]
    inside = (first + tl.arange(0, B) < row_count)[:, None] & (channel < C)[None, :]
    v = _load(y + first * C, at, inside)
    if bias is not None:
        v += _load(bias, channel, channel < C)[None, :]
    tl.store(out + first * C + at, _gelu(v).to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["row_count"])
def _gelu_backward_kernel(grad, y, bias, out, grad_y, sums, row_count, C: tl.constexpr, COLUMNS: tl.constexpr,
                          B: tl.constexpr):  # fmt: skip
    """Store GELU(y + bias) once more, the gradient of y, and sums (programs, C) of that of the bias."""
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    shift = _load(bias, channel, channel < C)[None, :]
    total = tl.zeros([B, COLUMNS], tl.float32)
    wide = tl.zeros([], tl.int64)
    for tile in range(tl.program_id(0), tl.cdiv(row_count, B), tl.num_programs(0)):
        first = wide + tile * B
        at = (tl.arange(0, B) * C)[:, None] + channel[None, :]
        inside = (first + tl.arange(0, B) < row_count)[:, None] & (channel < C)[None, :]
        v = _load(y + first * C, at, inside) + shift
        half = 0.5 * (1.0 + tl.erf(v * 0.7071067811865476))
        tl.store(out + first * C + at, (v * half).to(out.dtype.element_ty), mask=inside)
        v = _load(grad + first * C, at, inside) * (half + v * tl.exp(-0.5 * v * v) * 0.3989422804014327)
        total += v
        tl.store(grad_y + first * C + at, v.to(grad_y.dtype.element_ty), mask=inside)
    tl.store(sums + tl.program_id(0) * C + channel, tl.sum(total, axis=0), mask=channel < C)


@triton.jit(do_not_specialize=["row_count", "height", "width"])
def _depthwise_kernel(x, taps, conv_bias, weight, bias, out, row_count, height, width, eps, SIDE: tl.constexpr,
                      C: tl.constexpr, P: tl.constexpr, B: tl.constexpr):  # fmt: skip
    """GELU of the norm of a depth-wise convolution; a row is a pixel, `taps` are (C, SIDE * SIDE)."""
    first = tl.program_id(0).to(tl.int64) * B
    at, row, channel, inside = _tile(first, row_count, C, P, B)
    real, base = channel < C, first * C
    column, line = (first + row) % width, ((first + row) // width) % height
    v = tl.zeros([B, P], tl.float32) + _load(conv_bias, channel, real)[None, :]
    for tap in range(SIDE * SIDE):
        down, right = tap // SIDE - SIDE // 2, tap % SIDE - SIDE // 2
        valid = (line + down >= 0) & (line + down < height) & (column + right >= 0) & (column + right < width)
        shifted = base + (down * width + right).to(tl.int64) * C
        v += _load(x + shifted, at, inside & valid[:, None]) * _load(taps + tap, channel * (SIDE * SIDE), real)[None, :]
    v, _ = _standardize(tl.where(inside, v, 0.0), inside, eps, C)
    v = _gelu(v * _load(weight, channel, real)[None, :] + _load(bias, channel, real)[None, :])
    tl.store(out + base + at, v.to(out.dtype.element_ty), mask=inside)


class _Tile(NamedTuple):
    """How rows of C channels are cut into tiles."""

    padded: int
    rows: int
    warps: int


@functools.cache
def _tile_of(channels: int, itemsize: int, is_forward: bool, threads_of_warp: int) -> _Tile:
    padded = next_power_of_two(channels)
    warps = FORWARD_WARPS.get(max(64, padded), padded // 512) if is_forward else max(8, padded // 512)
    warps = min(1024 // threads_of_warp, max(1, warps * 32 // threads_of_warp))
    return _Tile(padded, max(1, TILE // itemsize // padded), warps)


def rows(
    y: Tensor, shift: Tensor | None, shortcut: Tensor | None, keep: Tensor | None, total: Tensor,
    normed: Tensor | None, gelu: bool, gamma: Tensor | None, weight: Tensor | None, bias: Tensor | None,
    next_weight: Tensor | None, next_bias: Tensor | None, eps: float,
) -> None:  # fmt: skip
    """Fill `total` with shortcut + keep * gamma * GELU(norm(y + shift)) and `normed` with next_norm of it.

    Maps are (..., C) contiguous, `keep` is (N,) for maps (N, ...), the last arguments are the fields of `Residual`.
    """
    channels = y.shape[-1]
    count, tile = y.numel() // channels, _tile_of(channels, y.itemsize, True, launch.lanes())
    with device_of(y):
        _rows_kernel[(-(-count // tile.rows),)](
            *(y, shift, shortcut, keep, gamma, weight, bias, next_weight, next_bias, total, normed, count),
            *(_image_rows(y, count), eps, gelu, channels, tile.padded, tile.rows),
            num_warps=tile.warps,
        )


def rows_backward(
    grad_total: Tensor, grad_normed: Tensor | None, y: Tensor | None, shift: Tensor | None, total: Tensor | None,
    keep: Tensor | None, gelu: bool, grad_y: Tensor, grad_shortcut: Tensor | None, gamma: Tensor | None,
    weight: Tensor | None, bias: Tensor | None, next_weight: Tensor | None, eps: float,
) -> Tensor:  # fmt: skip
    """Fill the gradients of y and of the shortcut, and return those of shift, gamma and norms that exist: (s, C)."""
    channels = grad_y.shape[-1]
    count, tile = grad_y.numel() // channels, _tile_of(channels, grad_y.itemsize, False, launch.lanes())
    slots = sum((shift is not None, gamma is not None, 2 * (weight is not None), 2 * (next_weight is not None)))
    programs = _programs(count, tile.rows, PROGRAMS)
    sums = torch.empty(programs, slots, channels, dtype=torch.float32, device=grad_y.device)
    with device_of(grad_y):
        _rows_backward_kernel[(programs,)](
            *(y, shift, total, keep, gamma, weight, bias, next_weight, grad_total, grad_normed, grad_y, grad_shortcut),
            *(sums, count, _image_rows(grad_y, count), eps, gelu, slots, channels, tile.padded, tile.rows),
            num_warps=tile.warps,
        )
    return sums.sum(0) if slots else sums[0]


def gelu(y: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """Fill `out` with GELU(y + bias), (..., C) contiguous; it may be y."""
    channels = y.shape[-1]
    count, columns, height, warps = _gelu_tile(y, TILE)
    with device_of(y):
        _gelu_kernel[(-(-count // height), -(-channels // columns))](
            y, bias, out, count, channels, columns, height, num_warps=warps
        )


def gelu_backward(grad: Tensor, y: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """GELU(y + bias) once more, and the gradients of y and bias."""
    channels, out, grad_y = y.shape[-1], torch.empty_like(y), torch.empty_like(y)
    count, columns, height, warps = _gelu_tile(y, GELU_BACKWARD_TILE)
    blocks = -(-channels // columns)
    programs = _programs(count, height, -(-GELU_PROGRAMS // blocks))
    sums = torch.empty(programs, channels, dtype=torch.float32, device=y.device)
    with device_of(y):
        _gelu_backward_kernel[(programs, blocks)](
            *(grad, y, bias, out, grad_y, sums, count, channels, columns, height), num_warps=warps
        )
    return out, grad_y, sums.sum(0)


def gelu_(x: Tensor) -> None:
    """Replace the contiguous x by its GELU."""
    if x.numel():
        gelu(x, None, x)


def add_shortcut_(y: Tensor, shortcut: Tensor, normed: Tensor | None, *residual: Any) -> None:
    """Replace the contiguous y by shortcut + gamma * norm(y) and fill `normed` with next_norm of it."""
    if y.numel():
        rows(y, None, shortcut, None, y, normed, False, *residual)


def add_residual_(x: Tensor, y: Tensor, normed: Tensor | None, *residual: Any) -> None:
    """Replace the contiguous x by x + gamma * norm(y) and fill `normed` with next_norm of it."""
    if y.numel():
        rows(y, None, x, None, x, normed, False, *residual)


def depthwise_norm_gelu(
    x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float
) -> Tensor:
    """GELU of the layer norm of a depth-wise convolution of a contiguous (N, H, W, C) map."""
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    _, height, width, channels = x.shape
    tile = _tile_of(channels, x.itemsize, False, launch.lanes())
    count = x.numel() // channels
    with device_of(x):
        _depthwise_kernel[(-(-count // tile.rows),)](
            *(x, weight.contiguous(), bias, norm_weight, norm_bias, out, count, height, width, eps),
            *(weight.shape[-1], channels, tile.padded, tile.rows),
            num_warps=tile.warps,
        )
    return out


def _image_rows(y: Tensor, count: int) -> int:
    return max(1, count // y.shape[0])


def _gelu_tile(y: Tensor, size: int) -> tuple[int, int, int, int]:
    """Rows of y, columns and rows of a tile of `size` bytes, and its warps."""
    columns = min(COLUMNS, next_power_of_two(y.shape[-1]))
    return y.numel() // y.shape[-1], columns, size // y.itemsize // columns, 128 // launch.lanes()


def _programs(count: int, tile_rows: int, most: int) -> int:
    """Programs of a backward pass, so few that their sums are small beside the rows."""
    return min(-(-count // tile_rows), most, max(32, count // 16))
