"""Inference twins: subclasses that take the place of a plain layer's class and compute the same in fewer passes.

A layer becomes its twin, and plain again, by a change of its class: parameters, children, hooks, mode and the keys of
its state stay as they are. In evaluation mode a backbone runs on twins; `fuse` puts them into a whole model and packs
weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from internimage.layers.fused.packed_linear import Affine, PackedLinear, is_emulated
from internimage.ops.fused import PackedWeight
from internimage.ops.fused.rules import is_inference
from internimage.ops.runtime.allocator import keep_freed_memory

_TWINS: dict[type[nn.Module], type[Twin]] = {}


class Twin(nn.Module):
    """The inference twin of the class `of`; without packed copies it reads the weights where they are.

    Whatever may change the weights drops the copies, and training mode brings the plain class back.
    """

    plain: ClassVar[type[nn.Module]]
    linear_layers: ClassVar[tuple[str, ...]] = ()  # children that become `FusedLinear`
    packed: dict[str, PackedLinear] | None = None
    packed_on = "cpu"  # type of the device that holds the copies

    def __init_subclass__(cls, *, of: type[nn.Module] | None = None) -> None:
        super().__init_subclass__()
        if of is not None:
            cls.plain = of
            _TWINS[of] = cls

    def packable(self) -> Mapping[str, tuple[nn.Linear | Affine, ...]]:
        """Name what is packed, and the layers that each of them joins."""
        return {}

    def pack(self) -> None:
        """Copy the weights into the layout of the matrix product."""
        self.packed = {name: PackedLinear(*layers) for name, layers in self.packable().items()} or None
        self.packed_on = next((p.device.type for p in self.parameters()), "cpu")

    @property
    def usable(self) -> dict[str, PackedLinear] | None:
        """The packed copies if they may serve now."""
        return self.packed if self.packed is not None and is_inference(self.packed_on) else None

    def use_plain(self) -> None:
        """Give the layer its plain class back."""
        self.packed = None
        _change_class(self, self.plain)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; training takes place in the plain class."""
        super().train(mode)
        if mode:
            self.use_plain()
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self.packed = None
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.packed = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "packed"}


class FusedLinear(Twin, nn.Linear):
    """A linear layer that can hold a packed copy of its weights."""

    plain = nn.Linear

    def packable(self) -> dict[str, tuple[nn.Linear]]:
        """The layer itself."""
        return {"all": (self,)}

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        packed = self.usable
        if packed is not None:
            return packed["all"](input)
        if input.dtype is not self.weight.dtype and is_inference(input.device.type):
            weight, bias = self.weight.to(input.dtype), None if self.bias is None else self.bias.to(input.dtype)
            return F.linear(input, weight, bias)
        return super().forward(input)


class Float32Conv(Twin, nn.Conv2d):
    """A convolution in bfloat16 that computes in float32, for processors that would emulate it several times slower."""

    plain = nn.Conv2d

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not (is_emulated(weight) and is_inference("cpu")):
            return super()._conv_forward(input, weight, bias)
        wide_bias = None if bias is None else bias.float()
        return super()._conv_forward(input.float(), weight.float(), wide_bias).to(input.dtype)


def packed_weights(x: Tensor, *layers: nn.Linear) -> list[PackedWeight] | None:
    """The weights for `packed_perceptron` on x, in inference; None where that is not the way to go."""
    found = []
    for layer in layers:
        own = layer.packed["all"].packed if isinstance(layer, FusedLinear) and layer.packed is not None else None
        if own is None or own.blocks.dtype is not x.dtype:
            return None
        found.append(own)
    return found


def use_twins(model: nn.Module) -> None:
    """Put the inference twin in the place of every layer of the model that has one."""
    for module in model.modules():
        twin = _TWINS.get(type(module))
        if twin is None:
            continue
        _change_class(module, twin)


def fuse(model: nn.Module) -> None:
    """Prepare a model for inference: evaluation mode, twins, packed weights; see `InternImage.fuse`."""
    model.eval()
    keep_freed_memory()
    use_twins(model)
    for module in model.modules():
        if type(module) in (nn.Linear, nn.Conv2d) and is_emulated(cast("Tensor", module.weight)):
            _change_class(module, FusedLinear if isinstance(module, nn.Linear) else Float32Conv)
        if isinstance(module, Twin):
            for name in module.linear_layers:
                if type(child := getattr(module, name)) is nn.Linear:
                    _change_class(child, FusedLinear)
            module.pack()


def _change_class(module: nn.Module, cls: type[nn.Module]) -> None:
    module.__class__ = cls
