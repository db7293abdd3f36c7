"""Linear layers, and the steps between them, through the compiled kernels (kernel_linear.cpp, kernel_steps.cpp).

The last arguments of what adds a residual branch are the fields of `Residual`.
Shapes: ... any leading sizes, I inputs, O outputs, C channels; N images, H W map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from internimage.ops.fused.packed_weight import ConvWindow
from internimage.ops.fused.residual import NEXT_WEIGHT
from internimage.ops.runtime import library
from internimage.ops.runtime.abi import (
    ConvArgs,
    DepthwiseArgs,
    LinearArgs,
    PerceptronArgs,
    ResidualArgs,
    RowArgs,
)

ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2}
GELU, RESIDUAL = 0, 1  # operations on rows
RESIDUAL_TENSORS = ("shortcut", "gamma", "weight_a", "bias_a", "weight_b", "bias_b", "normed")
WORK_PER_THREAD = 2**20  # multiply-adds of a linear layer, about 10 microseconds


def missing_reason(device: str, dtype: torch.dtype) -> str | None:
    """Why the compiled kernels cannot run on tensors of this device type and dtype, or None when they can."""
    if device != "cpu":
        return f"the compiled kernels run on cpu tensors, given {device}"
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"the fused steps support float32, float16 and bfloat16, given {dtype}"
    return library.missing_reason()


def gelu_(x: Tensor) -> None:
    """Replace the contiguous x by its GELU, to 3e-7."""
    _rows(x, GELU, ResidualArgs())


def add_shortcut_(y: Tensor, shortcut: Tensor, normed: Tensor | None, *residual: Any) -> None:
    """Replace the contiguous y by shortcut + gamma * norm(y) and fill `normed` with next_norm of it."""
    args, _kept = _residual(shortcut, y, normed, *residual)
    _rows(y, RESIDUAL, args)


def add_residual_(x: Tensor, y: Tensor, normed: Tensor | None, *residual: Any) -> None:
    """Replace the contiguous x by x + gamma * norm(y) and fill `normed` with next_norm of it."""
    args, _kept = _residual(x, x, normed, *residual)
    _rows(y, RESIDUAL, args)


def depthwise_norm_gelu(
    x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float
) -> Tensor:
    """GELU of the layer norm of a depth-wise convolution of a contiguous (N, H, W, C) map."""
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    taps = _in_dtype(weight, x.dtype).flatten(1).t().contiguous()  # (k * k, C)
    bias, norm_weight, norm_bias = (_in_dtype(t, x.dtype) for t in (bias, norm_weight, norm_bias))
    n, height, width, channels = x.shape
    args = DepthwiseArgs(
        x=x.data_ptr(),
        weight=taps.data_ptr(),
        bias=bias.data_ptr(),
        norm_weight=norm_weight.data_ptr(),
        norm_bias=norm_bias.data_ptr(),
        out=out.data_ptr(),
        batch=n,
        height=height,
        width=width,
        channels=channels,
        kernel=weight.shape[-1],
        eps=eps,
    )
    library.call("internimage_depthwise", args, x.dtype, torch.get_num_threads())
    return out


def linear(x: Tensor, blocks: Tensor, bias: Tensor, outputs: int, activation: str) -> Tensor:
    """Activation of x W + b for contiguous x (..., I): (..., O)."""
    *leading, inputs = x.shape
    out = x.new_empty(*leading, outputs)
    if count := out.numel():
        args = LinearArgs(
            x=x.data_ptr(),
            weight=blocks.data_ptr(),
            bias=bias.data_ptr(),
            out=out.data_ptr(),
            rows=count // outputs,
            inputs=inputs,
            outputs=outputs,
            activation=ACTIVATIONS[activation],
        )
        library.call("internimage_linear", args, x.dtype, library.team_size(count * inputs, WORK_PER_THREAD))
    return out


def perceptron(
    x: Tensor,
    shortcut: Tensor,
    blocks: list[Tensor],
    biases: list[Tensor],
    outputs: list[int],
    activation: str,
    *residual: Any,
) -> list[Tensor]:
    """One layer or two with an activation between them, added to a shortcut (..., O): the sum, and next_norm of it."""
    total, normed = _results(torch.empty_like(shortcut), residual)
    if count := total.numel():
        residual_args, _kept = _residual(shortcut, total, normed, *residual)
        inputs, last = x.shape[-1], outputs[-1]
        args = PerceptronArgs(
            x=x.data_ptr(),
            weight_1=blocks[0].data_ptr(),
            bias_1=biases[0].data_ptr(),
            residual=residual_args,
            rows=count // last,
            inputs=inputs,
            outputs=last,
            activation=ACTIVATIONS[activation],
        )
        work = count * inputs
        if len(blocks) > 1:
            args.weight_2, args.bias_2, args.hidden = blocks[1].data_ptr(), biases[1].data_ptr(), outputs[0]
            work = count // last * outputs[0] * (inputs + last)
        library.call("internimage_perceptron", args, x.dtype, library.team_size(work, WORK_PER_THREAD))
    return [total] if normed is None else [total, normed]


def conv(
    x: Tensor, blocks: Tensor, bias: Tensor, outputs: int, window: list[int], activation: str, *residual: Any
) -> list[Tensor]:
    """Activation of the norm of a convolution of a contiguous (N, H, W, C) map, and next_norm of it."""
    n, height, width, channels = x.shape
    kernel, stride, padding = window
    out_height, out_width = ConvWindow(*window).output_size(height, width)
    out, normed = _results(x.new_empty(n, out_height, out_width, outputs), residual)
    if count := out.numel():
        inputs = blocks.shape[1] * blocks.shape[3]
        residual_args, _kept = _residual(None, out, normed, *residual)
        args = ConvArgs(
            x=x.data_ptr(),
            weight=blocks.data_ptr(),
            bias=bias.data_ptr(),
            residual=residual_args,
            batch=n,
            height=height,
            width=width,
            channels=channels,
            out_height=out_height,
            out_width=out_width,
            kernel=kernel,
            stride=stride,
            padding=padding,
            rows=count // outputs,
            inputs=inputs,
            outputs=outputs,
            activation=ACTIVATIONS[activation],
        )
        library.call("internimage_conv", args, x.dtype, library.team_size(count * inputs, WORK_PER_THREAD))
    return [out] if normed is None else [out, normed]


def _rows(y: Tensor, operation: int, residual: ResidualArgs) -> None:
    """Run one step on the channel rows of a contiguous tensor."""
    if count := y.numel():
        channels = y.shape[-1]
        args = RowArgs(
            y=y.data_ptr(), rows=count // channels, channels=channels, operation=operation, residual=residual
        )
        library.call("internimage_rows", args, y.dtype, torch.get_num_threads())


def _residual(
    shortcut: Tensor | None, total: Tensor, normed: Tensor | None, *residual: Any
) -> tuple[ResidualArgs, list[Tensor | None]]:
    """The addresses of a residual sum, and the tensors that must live until the call returns."""
    *parameters, eps = residual
    dtype = total.dtype
    kept = [t if t is None or t.dtype is dtype else t.to(dtype) for t in (shortcut, *parameters, normed)]
    addresses = [None if t is None else t.data_ptr() for t in kept]
    return ResidualArgs(sum=total.data_ptr(), eps=eps, **dict(zip(RESIDUAL_TENSORS, addresses, strict=True))), kept


def _results(total: Tensor, residual: tuple[Any, ...]) -> tuple[Tensor, Tensor | None]:
    """The sum and, where it is asked for, its norm."""
    return total, None if residual[NEXT_WEIGHT] is None else torch.empty_like(total)


def _in_dtype(t: Tensor, dtype: torch.dtype) -> Tensor:
    return t if t.dtype is dtype else t.to(dtype)
