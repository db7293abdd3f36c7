"""Linear layers prepared for inference: weights in the layout of the matrix product, several layers as one.

Shapes: ... any leading sizes, I inputs, O outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from internimage.ops.derivatives import is_transformed
from internimage.ops.fused import (
    Activation,
    PackedWeight,
    Residual,
    Window,
    gelu_,
    missing_reason,
    pack,
    packed_conv,
    packed_linear,
    patch_weight,
)


class Affine(NamedTuple):
    """Rows of a linear layer that serve as a layer of their own."""

    weight: Tensor
    bias: Tensor | None


class PackedLinear:
    """One or more linear layers with the same input, as one matrix product.

    On a CPU the weights are copied once into the layout of the product, ours (`internimage.ops.fused`) or oneDNN's,
    whichever is the faster one there; elsewhere the product is a plain one. The copy is as large as the weights.

    Args:
        layers: layers with equal inputs; the outputs stand side by side in the order given.
    """

    def __init__(self, *layers: nn.Linear | Affine) -> None:
        weights = [layer.weight.detach() for layer in layers]
        biases = [layer.bias.detach() if layer.bias is not None else None for layer in layers]
        self.sizes = [weight.shape[0] for weight in weights]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        bias = _join(biases, self.sizes, weight)
        self.packed = pack(weight, bias) if missing_reason(weight) is None else None
        self._product = self._other_product(weight, bias) if self.packed is None else None

    def __call__(self, x: Tensor, *, activation: Activation = "none") -> Tensor:
        """Map (..., I) to (..., O)."""
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


def patch_layers(**convolutions: nn.Conv2d) -> dict[str, tuple[Affine]]:
    """For `Packable.packable`: convolutions as layers on patches, for `conv_norm`; none where that is not the way."""
    layers = {name: (Affine(patch_weight(conv.weight), conv.bias),) for name, conv in convolutions.items()}
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
    window = Window(conv.kernel_size[0], conv.stride[0], int(conv.padding[0]))
    residual = Residual.of(norm=norm, next_norm=next_norm)
    return packed_conv(x, product.packed, window, residual, activation=activation)


def packed_weights(*products: PackedLinear) -> list[PackedWeight] | None:
    """The weights for `internimage.ops.fused.packed_perceptron`, or None where that is not the way to go."""
    packed = [product.packed for product in products if product.packed is not None]
    return packed if len(packed) == len(products) else None


class Packable(nn.Module, ABC):
    """A module that can hold packed copies of its linear layers; whatever may change the weights drops them."""

    packed: dict[str, PackedLinear] | None = None
    packed_on = "cpu"  # type of the device that holds the copies

    @abstractmethod
    def packable(self) -> Mapping[str, tuple[nn.Linear | Affine, ...]]:
        """Name the products and the layers each of them joins."""

    def pack(self) -> None:
        """Prepare the linear layers for inference."""
        self.packed = {name: PackedLinear(*layers) for name, layers in self.packable().items()}
        self.packed_on = next(self.parameters()).device.type

    @staticmethod
    def pack_all(model: nn.Module) -> None:
        """Prepare every module of a model that can be."""
        for module in model.modules():
            if isinstance(module, Packable):
                module.pack()

    def unpack(self) -> None:
        """Drop the packed copies."""
        self.packed = None

    @property
    def products(self) -> dict[str, PackedLinear] | None:
        """The packed copies if they may serve now: without derivatives and outside of a compiler or exporter."""
        if self.packed is None or torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed():
            return None
        return None if torch.is_autocast_enabled(self.packed_on) else self.packed

    def train(self, mode: bool = True) -> Self:
        """Set the mode; training drops the packed copies."""
        if mode:
            self.unpack()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self.unpack()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.unpack()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "packed"}


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
