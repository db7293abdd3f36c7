"""The operators of this package in the standard operators of ONNX: `DeformConv` (opset 19), `GridSample` (opset 16).

Shape legend: N images, H W map, C channels, G groups, D = C / G, K points, Ho Wo output map; M heads, L levels,
Q queries, P points of a level, S pixels of all levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript
import torch

from internimage.ops.sampling import Window, window_points

# `Any`, because their annotations are of functions that onnxscript compiles, not of calls on values of a graph.
opset16: Any = onnxscript.opset16
opset19: Any = onnxscript.opset19
DEFORM_CONV, GRID_SAMPLE = "deform_conv", "grid_sample"
OPSETS = {DEFORM_CONV: 19, GRID_SAMPLE: 16}  # the first that has the operator
Side = int | ir.Value
Translations = dict[Callable[..., Any], Callable[..., ir.Value]]


def translations(operators: str) -> Translations:
    """Return how an exporter writes each operator of this package.

    Args:
        operators: "deform_conv" or "grid_sample"; attention over several levels has the second form alone.
    """
    sample = {DEFORM_CONV: _by_deform_conv, GRID_SAMPLE: _by_grid_sample}[operators]

    # The exporter reads annotations and does not know `ir.Value`, so these functions have none.
    def dcnv3(x, offset, mask, *settings):
        window = _window(settings)
        groups, points = window.groups, window.points
        offset = _reshape(offset, 0, 0, 0, groups, 2 * points)
        return _in_float(sample, x, offset, _reshape(mask, 0, 0, 0, groups, points), window, _side(x, 3))

    def dcnv4(x, offset_mask, *settings):
        window = _window(settings)
        groups, points = window.groups, window.points
        used = _slice(offset_mask, 0, 3 * groups * points, axis=3)
        by_group = _reshape(used, 0, 0, 0, groups, 3 * points)
        offset, mask = _slice(by_group, 0, 2 * points, axis=4), _slice(by_group, 2 * points, 3 * points, axis=4)
        return _in_float(sample, x, offset, mask, window, _side(x, 3))

    own = torch.ops.internimage
    return {
        own.dcnv3.default: dcnv3,
        own.dcnv4.default: dcnv4,
        own.ms_deform_attn.default: lambda *arguments: _in_float(_attention, *arguments[:3], *arguments[3:6]),
    }


def _window(settings: Sequence[Any]) -> Window:
    """Return the arguments of an operator behind its tensors, without the backend's name."""
    values: list[Any] = [tuple(value) if isinstance(value, Sequence) else value for value in settings[:-1]]
    return Window(*values)


def _in_float(sample: Callable[..., ir.Value], *arguments: Any) -> ir.Value:
    """Run in float32 whatever the type of the three tensors: half numbers are off by whole pixels of a large map."""
    *tensors, dtype = *arguments[:3], arguments[0].dtype
    if dtype in (ir.DataType.FLOAT, None):
        return sample(*arguments)
    y = sample(*(_cast(tensor, ir.DataType.FLOAT) for tensor in tensors), *arguments[3:])
    return _cast(y, dtype)


def _side(x: ir.Value, axis: int) -> int:
    """Return a size that is never free, such as the channels of a map."""
    side = None if x.shape is None else x.shape[axis]
    assert isinstance(side, int)
    return side


# ---------------------------------------------------------------- windows


def _by_deform_conv(x: ir.Value, offset: ir.Value, mask: ir.Value, window: Window, channels: int) -> ir.Value:
    """A DeformConv of the map, height and width exchanged: (N, H, W, C) to (N, Ho, Wo, C).

    Our points run width first and their offsets are (x, y); in the exchanged map, this is the operator's own order.

    Args:
        x: (N, H, W, C).
        offset: (N, Ho, Wo, G, K*2).
        mask: (N, Ho, Wo, G, K).
        window: the geometry.
        channels: C.
    """
    op = opset19
    groups, (kernel_h, kernel_w) = window.groups, window.kernel_size
    mask, offset = _softmax(mask, window), _scaled(offset, window)
    if window.remove_center:
        offset, mask = _with_center(offset, mask, window)
    points = kernel_h * kernel_w
    offset, mask = _reshape(offset, 0, 0, 0, groups * points * 2), _reshape(mask, 0, 0, 0, groups * points)
    width = channels // groups
    weight = np.zeros((channels, width, kernel_w, kernel_h), dtype=np.float32)
    weight[np.arange(channels), np.arange(channels) % width] = 1  # each channel is summed over its points alone
    y = op.DeformConv(
        op.Transpose(x, perm=[0, 3, 2, 1]),
        _array(weight),
        op.Transpose(offset, perm=[0, 3, 2, 1]),
        None,
        op.Transpose(mask, perm=[0, 3, 2, 1]),
        kernel_shape=[kernel_w, kernel_h],
        strides=list(window.stride[::-1]),
        pads=[*window.padding[::-1]] * 2,
        dilations=list(window.dilation[::-1]),
        group=groups,
        offset_group=groups,
    )
    return op.Transpose(y, perm=[0, 3, 2, 1])


def _scaled(offset: ir.Value, window: Window) -> ir.Value:
    """Return the (N, Ho, Wo, G, K*2) shifts from the plain grid: ours also scale the grid about its center."""
    if window.offset_scale == 1.0:
        return offset
    grid = np.array(_grid(window), dtype=np.float32) * np.float32(window.offset_scale - 1)
    op = opset19
    return op.Add(op.Mul(offset, _number(window.offset_scale)), _array(grid.ravel()))


def _grid(window: Window) -> list[tuple[int, int]]:
    """(x, y) of every point relative to the center of the window, in pixels."""
    (kernel_h, kernel_w), (step_h, step_w) = window.kernel_size, window.dilation
    half_w, half_h = (step_w * (kernel_w - 1)) >> 1, (step_h * (kernel_h - 1)) >> 1
    return [(a * step_w - half_w, b * step_h - half_h) for a, b in window_points(window)]


def _with_center(offset: ir.Value, mask: ir.Value, window: Window) -> tuple[ir.Value, ir.Value]:
    """Put the point in the center back, with the weight 0: (N, Ho, Wo, G, K*2 + 2) and (N, Ho, Wo, G, K + 1)."""
    op = opset19
    points, center = window.points, window.points // 2
    order = [*range(center), 0, *range(center, points)]
    weights = np.array([index != center for index in range(points + 1)], dtype=np.float32)
    coordinates = [2 * index + axis for index in order for axis in (0, 1)]
    return (
        op.Gather(offset, _integers(*coordinates), axis=4),
        op.Mul(op.Gather(mask, _integers(*order), axis=4), _array(weights)),
    )


def _by_grid_sample(x: ir.Value, offset: ir.Value, mask: ir.Value, window: Window, channels: int) -> ir.Value:
    """Bilinear samples of each group and their weighted sum; the arguments of `_by_deform_conv`."""
    op = opset16
    groups, points, width = window.groups, window.points, channels // window.groups
    height, side = op.Shape(x, start=1, end=2), op.Shape(x, start=2, end=3)
    out_sides = op.Shape(offset, start=1, end=3)  # [Ho, Wo]
    out_pixels = op.ReduceProd(out_sides, keepdims=1)
    batch = op.Shape(x, start=0, end=1)
    number = op.Mul(batch, _integers(groups))  # of maps; optimizers know what it is, but have erred about -1
    maps = op.Transpose(_reshape(x, 0, 0, 0, groups, width), perm=[0, 3, 4, 1, 2])  # (N, G, D, H, W)
    maps = op.Reshape(maps, op.Concat(number, _integers(width), height, side, axis=0))  # (N*G, D, H, W)
    shift = op.Mul(_reshape(offset, 0, 0, 0, groups, points, 2), _number(window.offset_scale))
    place = op.Add(op.Add(shift, _array(_corner_grid(window))), _corners(offset, window))  # (N, Ho, Wo, G, K, 2) px
    place = op.Transpose(place, perm=[0, 3, 1, 2, 4, 5])
    place = op.Reshape(place, op.Concat(number, out_pixels, _integers(points, 2), axis=0))
    size_wh = op.Cast(op.Concat(side, height, axis=0), to=ir.DataType.FLOAT)
    grid = op.Sub(op.Div(op.Add(op.Mul(place, _number(2)), _number(1)), size_wh), _number(1))
    samples = op.GridSample(maps, grid, align_corners=0, mode="bilinear", padding_mode="zeros")  # (N*G, D, Ho*Wo, K)
    weights = op.Transpose(_softmax(mask, window), perm=[0, 3, 1, 2, 4])
    weights = op.Reshape(weights, op.Concat(number, _integers(1), out_pixels, _integers(points), axis=0))
    summed = op.ReduceSum(op.Mul(samples, weights), _integers(3), keepdims=0)  # (N*G, D, Ho*Wo)
    y = op.Reshape(summed, op.Concat(batch, _integers(channels), out_sides, axis=0))
    return op.Transpose(y, perm=[0, 2, 3, 1])


def _corner_grid(window: Window) -> np.ndarray:
    """(K, 2) of the points relative to the pixel of a window's first step."""
    (kernel_h, kernel_w), (step_h, step_w) = window.kernel_size, window.dilation
    center = (
        ((step_w * (kernel_w - 1)) >> 1) - window.padding[1],
        ((step_h * (kernel_h - 1)) >> 1) - window.padding[0],
    )
    return np.array(_grid(window), dtype=np.float32) * np.float32(window.offset_scale) + np.array(center, np.float32)


def _corners(offset: ir.Value, window: Window) -> ir.Value:
    """(Ho, Wo, 1, 1, 2) pixel (x, y) at which the window of each output pixel stands."""
    op = opset16

    def steps(axis: int) -> ir.Value:
        count = op.Squeeze(op.Shape(offset, start=1 + axis, end=2 + axis))
        indices = op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1))
        places = op.Mul(op.Cast(indices, to=ir.DataType.FLOAT), _number(window.stride[axis]))
        return _reshape(places, *(-1 if i == axis else 1 for i in range(5)))

    is_x, is_y = _array(np.array([1, 0])), _array(np.array([0, 1]))
    return op.Add(op.Mul(steps(1), is_x), op.Mul(steps(0), is_y))


def _softmax(mask: ir.Value, window: Window) -> ir.Value:
    return opset16.Softmax(mask, axis=-1) if window.softmax else mask


# ---------------------------------------------------------------- attention over several levels


def _attention(
    value: ir.Value,
    locations: ir.Value,
    weights: ir.Value,
    sizes: Sequence[Side],
    normalized: bool,
    softmax: bool,
) -> ir.Value:
    """Bilinear samples of each level and their weighted sum: (N, Q, M*D).

    Args:
        value: (N, S, M, D).
        locations: (N, Q, M, L, P, 2) as (x, y).
        weights: (N, Q, M, L, P).
        sizes: height and width of every level.
        normalized: whether locations are fractions of the map, else pixels.
        softmax: whether the weights are logits.
    """
    op = opset16
    heads, width, points = _side(value, 2), _side(value, 3), _side(locations, 4)
    levels = list(zip(sizes[::2], sizes[1::2], strict=True))
    flat = _reshape(weights, 0, 0, 0, len(levels) * points)
    flat = op.Softmax(flat, axis=-1) if softmax else flat
    batch, queries = op.Shape(locations, start=0, end=1), op.Shape(locations, start=1, end=2)
    number = op.Mul(batch, _integers(heads))
    flat = op.Transpose(flat, perm=[0, 2, 1, 3])
    flat = op.Reshape(flat, op.Concat(number, _integers(1), queries, _integers(len(levels) * points), axis=0))
    maps = op.Transpose(value, perm=[0, 2, 3, 1])  # (N, M, D, S)
    places = op.Transpose(locations, perm=[3, 0, 2, 1, 4, 5])  # (L, N, M, Q, P, 2)
    samples, start = [], _integers(0)
    for index, (height, side) in enumerate((_as_tensor(height), _as_tensor(side)) for height, side in levels):
        end = op.Add(start, op.Mul(height, side))
        level = op.Slice(maps, start, end, _integers(3))
        level = op.Reshape(level, op.Concat(number, _integers(width), height, side, axis=0))
        place = op.Gather(places, op.Constant(value_int=index), axis=0)
        place = op.Reshape(place, op.Concat(number, queries, _integers(points, 2), axis=0))
        if not normalized:
            place = op.Div(place, op.Cast(op.Concat(side, height, axis=0), to=ir.DataType.FLOAT))
        grid = op.Sub(op.Mul(place, _number(2)), _number(1))
        samples.append(op.GridSample(level, grid, align_corners=0, mode="bilinear", padding_mode="zeros"))
        start = end
    summed = op.ReduceSum(op.Mul(op.Concat(*samples, axis=3), flat), _integers(3), keepdims=0)  # (N*M, D, Q)
    y = op.Reshape(summed, op.Concat(batch, _integers(heads * width), queries, axis=0))
    return op.Transpose(y, perm=[0, 2, 1])


# ---------------------------------------------------------------- small things


def _integers(*values: int) -> ir.Value:
    return opset16.Constant(value_ints=list(values))


def _number(value: float) -> ir.Value:
    return opset16.Constant(value_float=float(value))


def _array(values: np.ndarray) -> ir.Value:
    return opset16.Constant(value=ir.tensor(values.astype(np.float32)))


def _as_tensor(side: Side) -> ir.Value:
    """Return a size as a tensor (1,) of int64."""
    return _integers(side) if isinstance(side, int) else _reshape(opset16.Cast(side, to=ir.DataType.INT64), 1)


def _reshape(value: ir.Value, *shape: int) -> ir.Value:
    """Reshape; 0 keeps a size, -1 is what is left."""
    return opset16.Reshape(value, _integers(*shape))


def _slice(value: ir.Value, start: int, end: int, *, axis: int) -> ir.Value:
    return opset16.Slice(value, _integers(start), _integers(end), _integers(axis))


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Value:
    return opset16.Cast(value, to=dtype)
