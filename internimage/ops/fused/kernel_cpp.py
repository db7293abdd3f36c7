"""Linear layers, and the steps between them, through the compiled kernels (kernel_linear.cpp, kernel_steps.cpp).

The last arguments of what adds a residual branch are the fields of `Residual`.
Shapes: ... any leading sizes, I inputs, O outputs, C channels; N images, H W map.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from internimage.ops.fused.packed_weight import ConvWindow
from internimage.ops.fused.residual import Residual
from internimage.ops.runtime import library
from internimage.ops.runtime.abi import (
    ConvArgs,
    DepthwiseArgs,
    LinearArgs,
    PerceptronArgs,
    ResidualArgs,
    RowArgs,
    addresses,
)

ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2}
GELU, RESIDUAL = 0, 1  # operations on rows
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
    _rows(x, operation=GELU)


def add_shortcut_(y: Tensor, shortcut: Tensor, normed: Tensor | None, *residual: Any) -> None:
    """Replace the contiguous y by shortcut + gamma * norm(y) and fill `normed` with next_norm of it."""
    args, _kept = _residual(shortcut, y, normed, *residual)
    _rows(y, operation=RESIDUAL, residual=args)


def add_residual_(x: Tensor, y: Tensor, normed: Tensor | None, *residual: Any) -> None:
    """Replace the contiguous x by x + gamma * norm(y) and fill `normed` with next_norm of it."""
    args, _kept = _residual(x, x, normed, *residual)
    _rows(y, operation=RESIDUAL, residual=args)


def depthwise_norm_gelu(
    x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float
) -> Tensor:
    """GELU of the layer norm of a depth-wise convolution of a contiguous (N, H, W, C) map."""
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    taps = _in_dtype(weight, x.dtype).flatten(1).t().contiguous()  # (k * k, C)
    bias, norm_weight, norm_bias = (_in_dtype(t, x.dtype) for t in (bias, norm_weight, norm_bias))
    args = DepthwiseArgs(
        **addresses(x=x, weight=taps, bias=bias, norm_weight=norm_weight, norm_bias=norm_bias, out=out),
        **_map_sizes(x),
        kernel=weight.shape[-1],
        eps=eps,
        **library.execution(x.dtype, torch.get_num_threads()),
    )
    library.call("internimage_depthwise", args)
    return out


def linear(x: Tensor, blocks: Tensor, bias: Tensor, outputs: int, activation: str) -> Tensor:
    """Activation of x W + b for contiguous x (..., I): (..., O)."""
    inputs = x.shape[-1]
    out = x.new_empty(*x.shape[:-1], outputs)
    if out.numel():
        rows = x.numel() // inputs
        args = LinearArgs(
            **addresses(x=x, weight=blocks, bias=bias, out=out),
            rows=rows,
            inputs=inputs,
            outputs=outputs,
            **_settings(x, activation, rows * inputs * outputs),
        )
        library.call("internimage_linear", args)
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
    if total.numel():
        inputs = x.shape[-1]
        rows, widths = x.numel() // inputs, [inputs, *outputs]
        work = rows * sum(a * b for a, b in pairwise(widths))
        residual_args, _kept = _residual(shortcut, total, normed, *residual)
        args = PerceptronArgs(
            **addresses(x=x, weight_1=blocks[0], bias_1=biases[0]),
            residual=residual_args,
            rows=rows,
            inputs=inputs,
            outputs=outputs[-1],
            **_settings(x, activation, work),
        )
        if len(blocks) > 1:
            args.weight_2, args.bias_2, args.hidden = blocks[1].data_ptr(), biases[1].data_ptr(), outputs[0]
        library.call("internimage_perceptron", args)
    return [total] if normed is None else [total, normed]


def conv(
    x: Tensor, blocks: Tensor, bias: Tensor, outputs: int, window: list[int], activation: str, *residual: Any
) -> list[Tensor]:
    """Activation of the norm of a convolution of a contiguous (N, H, W, C) map, and next_norm of it."""
    kernel, stride, padding = window
    out_height, out_width = ConvWindow(*window).output_size(*x.shape[1:3])
    out, normed = _results(x.new_empty(x.shape[0], out_height, out_width, outputs), residual)
    if out.numel():
        rows, inputs = out.numel() // outputs, blocks.shape[1] * blocks.shape[3]
        residual_args, _kept = _residual(None, out, normed, *residual)
        args = ConvArgs(
            **addresses(x=x, weight=blocks, bias=bias),
            **_map_sizes(x),
            residual=residual_args,
            out_height=out_height,
            out_width=out_width,
            kernel=kernel,
            stride=stride,
            padding=padding,
            rows=rows,
            inputs=inputs,
            outputs=outputs,
            **_settings(x, activation, rows * inputs * outputs),
        )
        library.call("internimage_conv", args)
    return [out] if normed is None else [out, normed]


def _rows(y: Tensor, **step: Any) -> None:
    """Run one step on the channel rows of a contiguous tensor."""
    if not y.numel():
        return
    channels = y.shape[-1]
    args = RowArgs(
        y=y.data_ptr(),
        rows=y.numel() // channels,
        channels=channels,
        **library.execution(y.dtype, torch.get_num_threads()),
        **step,
    )
    library.call("internimage_rows", args)


def _residual(
    shortcut: Tensor | None, total: Tensor, normed: Tensor | None, *residual: Any
) -> tuple[ResidualArgs, list[Tensor | None]]:
    """The addresses of a residual sum, and the tensors that must live until the call returns."""
    *parameters, eps = residual
    kept = [None if t is None else _in_dtype(t, total.dtype) for t in (shortcut, *parameters, normed)]
    names = ("shortcut", "gamma", "weight_a", "bias_a", "weight_b", "bias_b", "normed")
    return ResidualArgs(**addresses(sum=total, **dict(zip(names, kept, strict=True))), eps=eps), kept


def _results(total: Tensor, residual: tuple[Any, ...]) -> tuple[Tensor, Tensor | None]:
    """The sum and, where it is asked for, its norm."""
    return total, None if Residual(*residual).next_weight is None else torch.empty_like(total)


def _map_sizes(x: Tensor) -> dict[str, int]:
    return dict(zip(("batch", "height", "width", "channels"), x.shape, strict=True))


def _in_dtype(t: Tensor, dtype: torch.dtype) -> Tensor:
    return t if t.dtype is dtype else t.to(dtype)


def _settings(x: Tensor, activation: str, work: int) -> dict[str, int]:
    """The last arguments of every linear layer, given its multiply-adds."""
    threads = min(torch.get_num_threads(), 1 + work // WORK_PER_THREAD)
    return {"activation": ACTIVATIONS[activation], **library.execution(x.dtype, threads)}
