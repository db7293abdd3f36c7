"""Linear layers prepared for inference: weights in the layout of the matrix product, several layers as one.

Shapes: ... any leading sizes, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.ops.fused import (
    Activation,
    ConvWindow,
    Residual,
    gelu_,
    missing_reason,
    pack,
    packed_conv,
    packed_linear,
    patch_weight,
)
from internimage.ops.runtime import library


class Affine(NamedTuple):
    """Rows of a linear layer that serve as a layer of their own."""

    weight: Tensor
    bias: Tensor | None


class PackedLinear:
    """One or more linear layers with the same input, as one matrix product.

    On a CPU the weights are copied once into the layout of the product, ours (`internimage.ops.fused`) or oneDNN's,
    whichever is the faster one there; elsewhere the product is a plain one. The copy is as large as the weights; where
    torch would emulate bfloat16 it is in float32, and so is the product.

    Args:
        layers: layers with equal inputs; the outputs stand side by side in the order given.
    """

    def __init__(self, *layers: nn.Linear | Affine) -> None:
        weights = [layer.weight.detach() for layer in layers]
        biases = [layer.bias.detach() if layer.bias is not None else None for layer in layers]
        self.sizes = [weight.shape[0] for weight in weights]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        bias = _join(biases, self.sizes, weight)
        self.is_wide = is_emulated(weight)
        if self.is_wide:
            weight, bias = weight.float(), None if bias is None else bias.float()
        self.packed = pack(weight, bias) if missing_reason(weight) is None else None
        self._product = self._other_product(weight, bias) if self.packed is None else None

    def __call__(self, x: Tensor, *, activation: Activation = "none") -> Tensor:
        """Map (..., I) to (..., O)."""
        if self.is_wide and x.dtype is torch.bfloat16:
            return self(x.float(), activation=activation).to(x.dtype)
        if self.packed is not None:
            return packed_linear(x, self.packed, activation=activation)
        assert self._product is not None
        y = self._product(x)
        if activation == "relu":
            return y.relu_()
        return gelu_(y) if activation == "gelu" else y

    @staticmethod
    def _other_product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        if not _has_blocked_product(weight):
            return lambda x: F.linear(x, weight, bias)
        blocked = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, blocked, bias, "none", [], "")


def is_emulated(weight: Tensor) -> bool:
    """Whether torch would emulate what this weight of a layer is multiplied with, several times slower than float32."""
    return weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and library.emulates_bfloat16()


def patch_layers(**convolutions: nn.Conv2d) -> dict[str, tuple[Affine]]:
    """For `Twin.packable`: convolutions as layers on patches, for `conv_norm`; none where that is not the way."""
    layers: dict[str, tuple[Affine]] = {}
    for name, conv in convolutions.items():
        weight = conv.weight.float() if is_emulated(conv.weight) else conv.weight
        layers[name] = (Affine(patch_weight(weight), None if conv.bias is None else conv.bias.to(weight.dtype)),)
    return layers if all(missing_reason(layer.weight) is None for (layer,) in layers.values()) else {}


def conv_norm(
    x: Tensor,
    product: PackedLinear,
    conv: nn.Conv2d,
    norm: nn.LayerNorm,
    *,
    activation: Activation = "none",
    next_norm: nn.LayerNorm | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Apply a packed convolution, its norm and an activation to an (N, H, W, C) map.

    Returns:
        The result (N, H', W', O), and `next_norm` of it, None without `next_norm`.
    """
    assert product.packed is not None
    window = ConvWindow(conv.kernel_size[0], conv.stride[0], int(conv.padding[0]))
    residual = Residual.of(norm=norm, next_norm=next_norm)
    wide = x.to(product.packed.blocks.dtype)
    y, normed = packed_conv(wide, product.packed, window, residual, activation=activation)
    return y.to(x.dtype), None if normed is None else normed.to(x.dtype)


def _join(biases: list[Tensor | None], sizes: list[int], weight: Tensor) -> Tensor | None:
    """Biases side by side, zeros where a layer has none; None when no layer has one."""
    if all(bias is None for bias in biases):
        return None
    return torch.cat([weight.new_zeros(n) if b is None else b for b, n in zip(biases, sizes, strict=True)])


def _has_blocked_product(weight: Tensor) -> bool:
    """Whether oneDNN's product on blocked weights exists here for this tensor."""
    if weight.device.type != "cpu" or weight.numel() == 0 or not torch.backends.mkldnn.is_available():
        return False
    ops = torch.ops.mkldnn
    if not (hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(ops._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
