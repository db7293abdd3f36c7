"""Linear layers through the compiled kernels (kernel_cpp.cpp).

Shapes: R rows (any leading sizes), I inputs, O outputs; N images, H W map, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from internimage.ops.linear.packed import PackedWeight, Window
from internimage.ops.native import library
from internimage.ops.rowwise.branch import Branch
from internimage.ops.rowwise.kernel_cpp import residual_args

ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2}
WORK_PER_THREAD = 2**20  # multiply-adds, about 10 microseconds


def linear(x: Tensor, layer: PackedWeight, activation: str) -> Tensor:
    """Activation of x W + b for contiguous x (..., I): (..., O)."""
    out = x.new_empty(*x.shape[:-1], layer.outputs)
    if out.numel():
        args = library.LinearArgs(
            *(x.data_ptr(), *_pointers(layer), out.data_ptr(), *_sizes(x), layer.outputs),
            *_settings(x, x.numel() // layer.inputs, activation, layer.inputs * layer.outputs),
        )
        library.call("internimage_linear", args)
    return out


def perceptron(
    x: Tensor, layers: Sequence[PackedWeight], activation: str, shortcut: Tensor, branch: Branch
) -> tuple[Tensor, Tensor | None]:
    """One layer or two with an activation between them, added to the shortcut (..., O): the sum and next_norm of it."""
    total = torch.empty_like(shortcut)
    normed = None if branch.next_norm is None else torch.empty_like(shortcut)
    if total.numel():
        first, second = layers[0], layers[1] if len(layers) > 1 else None
        residual, _kept = residual_args(shortcut, total, branch, normed)
        args = library.PerceptronArgs(
            *(x.data_ptr(), *_pointers(first), *((0, 0) if second is None else _pointers(second)), residual),
            *(*_sizes(x), 0 if second is None else first.outputs, total.shape[-1]),
            *_settings(x, x.numel() // x.shape[-1], activation, sum(one.inputs * one.outputs for one in layers)),
        )
        library.call("internimage_perceptron", args)
    return total, normed


def conv(
    x: Tensor, layer: PackedWeight, window: Window, activation: str, branch: Branch
) -> tuple[Tensor, Tensor | None]:
    """Activation of the norm of a convolution of a contiguous (N, H, W, C) map, and next_norm of it."""
    n, height, width, channels = x.shape
    out_height, out_width = window.output_size(height, width)
    out = x.new_empty(n, out_height, out_width, layer.outputs)
    normed = None if branch.next_norm is None else torch.empty_like(out)
    if out.numel():
        residual, _kept = residual_args(None, out, branch, normed)
        rows = n * out_height * out_width
        settings = _settings(x, rows, activation, layer.inputs * layer.outputs)
        args = library.ConvArgs(
            *(x.data_ptr(), *_pointers(layer), residual, n, height, width, channels, out_height, out_width),
            *(*window, rows, layer.inputs, layer.outputs, *settings),
        )
        library.call("internimage_conv", args)
    return out, normed


def _pointers(layer: PackedWeight) -> tuple[int, int]:
    return layer.blocks.data_ptr(), layer.bias.data_ptr()


def _sizes(x: Tensor) -> tuple[int, int]:
    """Rows and inputs."""
    inputs = x.shape[-1]
    return x.numel() // inputs, inputs


def _settings(x: Tensor, rows: int, activation: str, work: int) -> tuple[int, int, int, int]:
    """The last arguments of every call; `work` is the multiply-adds of a row."""
    threads = min(torch.get_num_threads(), 1 + rows * work // WORK_PER_THREAD)
    return ACTIVATIONS[activation], library.DATA_TYPES[x.dtype], threads, library.start_team()
