"""Linear layers on packed weights for inference, with what follows them: an activation, or a residual sum and norms.

They have no gradients. Shapes: ... any leading sizes, I inputs, O outputs; N images, H W map, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from internimage.ops.linear import kernel_cpp
from internimage.ops.linear.packed import PackedWeight, Window, pad_inputs
from internimage.ops.registration import is_plain
from internimage.ops.rowwise.branch import BRANCH_SCHEMA, Branch
from internimage.ops.sampling import expect_shape

Activation = Literal["none", "relu", "gelu"]

_library = torch.library.Library("internimage", "FRAGMENT")
_library.define("packed_linear(Tensor x, Tensor blocks, Tensor biases, int outputs, str activation) -> Tensor")
_library.define(
    "packed_perceptron(Tensor x, Tensor[] blocks, Tensor[] biases, int[] outputs, str activation, Tensor shortcut, "
    f"{BRANCH_SCHEMA}) -> Tensor[]"
)
_library.define(
    "packed_conv(Tensor x, Tensor blocks, Tensor biases, int outputs, int[] window, str activation, "
    f"{BRANCH_SCHEMA}) -> Tensor[]"
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
        >>> from internimage.ops.linear import missing_reason, pack, packed_linear
        >>> weight = torch.ones(4, 6)
        >>> if missing_reason(weight) is None:
        ...     assert packed_linear(torch.ones(2, 6), pack(weight, None)).tolist() == [[6.0] * 4] * 2
    """
    _check(x, x.shape[-1], layer, activation)
    x = x.contiguous()
    if is_plain(x):
        return kernel_cpp.linear(x, layer, activation)
    return torch.ops.internimage.packed_linear(x, layer.blocks, layer.bias, layer.outputs, activation)


def packed_perceptron(
    x: Tensor,
    layers: Sequence[PackedWeight],
    shortcut: Tensor,
    branch: Branch,
    *,
    activation: Activation = "none",
) -> tuple[Tensor, Tensor | None]:
    """Apply one packed linear layer, or two with an activation between them, and add the result to a shortcut.

    Hidden rows never leave the cache, and the outputs stay float32 until they have joined the sum.

    Args:
        x: (..., I) of the dtype of the weights.
        layers: one or two packed layers.
        shortcut: (..., O) with the leading sizes of x.
        branch: scale and norm of the result, and the norm of the sum, see `Branch`.
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
    x, shortcut = x.contiguous(), shortcut.contiguous()
    if is_plain(x, shortcut):
        return kernel_cpp.perceptron(x, layers, activation, shortcut, branch)
    weights, biases, _, outputs = (list(values) for values in zip(*layers, strict=True))
    results = torch.ops.internimage.packed_perceptron(x, weights, biases, outputs, activation, shortcut, *branch.flat())
    return results[0], results[1] if len(results) > 1 else None


def packed_conv(
    x: Tensor, layer: PackedWeight, window: Window, branch: Branch, *, activation: Activation = "none"
) -> tuple[Tensor, Tensor | None]:
    """Apply a convolution to a channels-last map, a layer norm and an activation.

    Args:
        x: (N, H, W, C) of the dtype of the weights.
        layer: packed `patch_weight` of the convolution and its biases.
        window: kernel, step and padding.
        branch: `norm` stands between convolution and activation, `next_norm` behind it; there is no gamma.
        activation: "none" or "gelu".

    Returns:
        (N, H', W', O) contiguous, and `next_norm` of it, None without `next_norm`.

    Raises:
        ValueError: sizes, dtype or activation do not fit, or the branch has a gamma.
    """
    inputs = pad_inputs(window.kernel_size**2 * x.shape[-1], layer.blocks.dtype)
    _check(x, inputs, layer, activation)
    if x.ndim != 4 or activation == "relu" or branch.gamma is not None:
        given = f"{tuple(x.shape)}, {activation!r} and {'no ' if branch.gamma is None else ''}gamma"
        raise ValueError(f"expected x (N, H, W, C), activation 'none' or 'gelu' and no gamma, given {given}")
    x = x.contiguous()
    if is_plain(x):
        return kernel_cpp.conv(x, layer, window, activation, branch)
    results = torch.ops.internimage.packed_conv(
        x, layer.blocks, layer.bias, layer.outputs, window, activation, *branch.flat()
    )
    return results[0], results[1] if len(results) > 1 else None


def _check(x: Tensor, inputs: int, layer: PackedWeight, activation: str) -> None:
    if inputs != layer.inputs:
        raise ValueError(f"expected {layer.inputs} inputs for this packed layer, given {inputs}")
    if x.dtype is not layer.blocks.dtype or x.device != layer.blocks.device:
        expected, given = layer.blocks, (x.dtype, str(x.device))
        raise ValueError(f"expected {expected.dtype} on {expected.device} for this packed layer, given {given}")
    if activation not in kernel_cpp.ACTIVATIONS:
        raise ValueError(f"activation must be one of {tuple(kernel_cpp.ACTIVATIONS)}, given {activation!r}")


def _packed(weight: Tensor, bias: Tensor, outputs: int) -> PackedWeight:
    return PackedWeight(weight, bias, weight.shape[1] * weight.shape[3], outputs)


def _linear(x: Tensor, weight: Tensor, bias: Tensor, outputs: int, activation: str) -> Tensor:
    return kernel_cpp.linear(x, _packed(weight, bias, outputs), activation)


def _perceptron(
    x: Tensor, blocks: list[Tensor], biases: list[Tensor], outputs: list[int], activation: str, *rest: Any
) -> list[Tensor]:
    shortcut, *branch = rest
    layers = [_packed(*parts) for parts in zip(blocks, biases, outputs, strict=True)]
    results = kernel_cpp.perceptron(x, layers, activation, shortcut, Branch.from_flat(*branch))
    return [result for result in results if result is not None]


def _fake_perceptron(*arguments: Any) -> list[Tensor]:
    shortcut, *branch = arguments[5:]
    count = 1 if Branch.from_flat(*branch).next_norm is None else 2
    return [torch.empty_like(shortcut) for _ in range(count)]


def _conv(
    x: Tensor, weight: Tensor, bias: Tensor, outputs: int, window: list[int], activation: str, *branch: Any
) -> list[Tensor]:
    layer = _packed(weight, bias, outputs)
    results = kernel_cpp.conv(x, layer, Window(*window), activation, Branch.from_flat(*branch))
    return [result for result in results if result is not None]


def _fake_conv(
    x: Tensor, weight: Tensor, bias: Tensor, outputs: int, window: list[int], activation: str, *branch: Any
) -> list[Tensor]:
    shape = x.shape[0], *Window(*window).output_size(*x.shape[1:3]), outputs
    count = 1 if Branch.from_flat(*branch).next_norm is None else 2
    return [x.new_empty(shape) for _ in range(count)]


_library.impl("packed_linear", _linear, "CompositeExplicitAutograd")
_library.impl("packed_perceptron", _perceptron, "CompositeExplicitAutograd")
_library.impl("packed_conv", _conv, "CompositeExplicitAutograd")
torch.library.register_fake(
    "internimage::packed_linear", lambda x, w, b, outputs, a: x.new_empty(*x.shape[:-1], outputs), lib=_library
)
torch.library.register_fake("internimage::packed_perceptron", _fake_perceptron, lib=_library)
torch.library.register_fake("internimage::packed_conv", _fake_conv, lib=_library)
