"""Linear layers on packed weights for inference, with what follows them: an activation, or a residual sum and norms.

They have no gradients. Shapes: ... any leading sizes, I inputs, O outputs; N images, H W map, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from internimage.ops.backends import Backend
from internimage.ops.fused import kernel_cpp
from internimage.ops.fused.packed_weight import ConvWindow, PackedWeight, pad_inputs
from internimage.ops.fused.residual import RESIDUAL_SCHEMA, Residual
from internimage.ops.registration import register_inference_operator
from internimage.ops.sampling import expect_shape

Activation = Literal["none", "relu", "gelu"]


def _fake_linear(x: Tensor, blocks: Tensor, bias: Tensor, outputs: int, activation: str) -> Tensor:
    return x.new_empty(*x.shape[:-1], outputs)


def _fake_perceptron(*values: Any) -> list[Tensor]:
    shortcut = values[1]
    return [torch.empty_like(shortcut) for _ in range(1 if Residual(*values[6:]).next_weight is None else 2)]


def _fake_conv(*values: Any) -> list[Tensor]:
    x, _, _, outputs, window = values[:5]
    shape = x.shape[0], *ConvWindow(*window).output_size(*x.shape[1:3]), outputs
    return [x.new_empty(shape) for _ in range(1 if Residual(*values[6:]).next_weight is None else 2)]


_linear = register_inference_operator(
    "packed_linear",
    "(Tensor x, Tensor blocks, Tensor bias, int outputs, str activation) -> Tensor",
    implementations={"cpp": Backend(kernel_cpp.missing_reason, kernel_cpp.linear)},
    fake=_fake_linear,
)
_perceptron = register_inference_operator(
    "packed_perceptron",
    "(Tensor x, Tensor shortcut, Tensor[] blocks, Tensor[] biases, int[] outputs, str activation, "
    f"{RESIDUAL_SCHEMA}) -> Tensor[]",
    implementations={"cpp": Backend(kernel_cpp.missing_reason, kernel_cpp.perceptron)},
    fake=_fake_perceptron,
    maps=2,
)
_conv = register_inference_operator(
    "packed_conv",
    f"(Tensor x, Tensor blocks, Tensor bias, int outputs, int[] window, str activation, {RESIDUAL_SCHEMA}) -> Tensor[]",
    implementations={"cpp": Backend(kernel_cpp.missing_reason, kernel_cpp.conv)},
    fake=_fake_conv,
)


def packed_linear(x: Tensor, layer: PackedWeight, *, activation: Activation = "none") -> Tensor:
    """Apply a packed linear layer and an activation (GELU in its erf form, to 3e-7 in float32).

    Args:
        x: (..., I) of the dtype of the weights.
        layer: weights and biases, see `pack`.
        activation: "none", "relu" or "gelu".

    Returns:
        (..., O) contiguous; the sums are float32 in every dtype.

    Raises:
        ValueError: size, dtype or activation do not fit.

    Example:
        >>> from internimage.ops.fused import missing_reason, pack, packed_linear
        >>> weight = torch.ones(4, 6)
        >>> if missing_reason(weight) is None:
        ...     assert packed_linear(torch.ones(2, 6), pack(weight, None)).tolist() == [[6.0] * 4] * 2
    """
    _check(x, x.shape[-1], layer, activation)
    return _linear(x.contiguous(), layer.blocks, layer.bias, layer.outputs, activation)


def packed_perceptron(
    x: Tensor,
    layers: Sequence[PackedWeight],
    shortcut: Tensor,
    residual: Residual,
    *,
    activation: Activation = "none",
) -> tuple[Tensor, Tensor | None]:
    """Apply one packed linear layer, or two with an activation between them, and add the result to a shortcut.

    Hidden rows never leave the cache, and the outputs stay float32 until they are part of the sum.

    Args:
        x: (..., I) of the dtype of the weights.
        layers: one or two packed layers.
        shortcut: (..., O) with the leading sizes of x.
        residual: scale and norm of the result, and the norm of the sum, see `Residual`.
        activation: "none", "relu" or "gelu", between two layers.

    Returns:
        shortcut + gamma * norm(result), (..., O), and `next_norm` of it, None without `next_norm`.

    Raises:
        ValueError: sizes, dtypes, number of layers or activation do not fit.
    """
    if not 1 <= len(layers) <= 2:
        raise ValueError(f"expected one or two layers, given {len(layers)}")
    if len(layers) == 1 and activation != "none":
        raise ValueError(f"expected activation 'none' for a single layer, given {activation!r}")
    inputs = x.shape[-1]
    for layer in layers:
        _check(x, inputs, layer, activation)
        inputs = layer.outputs
    expect_shape("shortcut", shortcut, (*x.shape[:-1], inputs), "the shape of the result")
    if shortcut.dtype != x.dtype:
        raise ValueError(f"expected a shortcut of {x.dtype}, given {shortcut.dtype}")
    blocks, biases = [layer.blocks for layer in layers], [layer.bias for layer in layers]
    outputs = [layer.outputs for layer in layers]
    return _two(_perceptron(x.contiguous(), shortcut.contiguous(), blocks, biases, outputs, activation, *residual))


def packed_conv(
    x: Tensor, layer: PackedWeight, window: ConvWindow, residual: Residual, *, activation: Activation = "none"
) -> tuple[Tensor, Tensor | None]:
    """Apply a convolution to a channels-last map, a layer norm and an activation.

    Args:
        x: (N, H, W, C) of the dtype of the weights.
        layer: packed `patch_weight` of the convolution and its biases.
        window: kernel, step and padding.
        residual: `norm` stands between convolution and activation, `next_norm` behind it; there is no gamma.
        activation: "none" or "gelu".

    Returns:
        (N, H', W', O) contiguous, and `next_norm` of it, None without `next_norm`.

    Raises:
        ValueError: sizes, dtype or activation do not fit, or `residual` has a gamma.
    """
    inputs = pad_inputs(window.kernel_size**2 * x.shape[-1], layer.blocks.dtype)
    _check(x, inputs, layer, activation)
    if x.ndim != 4 or activation == "relu" or residual.gamma is not None:
        given = f"{tuple(x.shape)}, {activation!r} and {'no ' if residual.gamma is None else ''}gamma"
        raise ValueError(f"expected x (N, H, W, C), activation 'none' or 'gelu' and no gamma, given {given}")
    return _two(_conv(x.contiguous(), layer.blocks, layer.bias, layer.outputs, window, activation, *residual))


def _two(results: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    return results[0], results[1] if len(results) > 1 else None


def _check(x: Tensor, inputs: int, layer: PackedWeight, activation: str) -> None:
    if inputs != layer.inputs:
        raise ValueError(f"expected {layer.inputs} inputs for this packed layer, given {inputs}")
    if x.dtype is not layer.blocks.dtype or x.device != layer.blocks.device:
        expected, given = layer.blocks, (x.dtype, str(x.device))
        raise ValueError(f"expected {expected.dtype} on {expected.device} for this packed layer, given {given}")
    if activation not in kernel_cpp.ACTIVATIONS:
        raise ValueError(f"activation must be one of {tuple(kernel_cpp.ACTIVATIONS)}, given {activation!r}")
