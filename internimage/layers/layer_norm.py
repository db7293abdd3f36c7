"""Layer norm over channels, the last axis of a channels-last map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from internimage.layers.hooks import has_hooks
from internimage.ops.fused import have_kernels, layer_norm

SLOW_CHANNELS = 48


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` over the last axis of (..., C).

    On a GPU a kernel of ours reads and writes each row once, forward and backward. Under autocast it reads half maps as
    they are, and the result is float32, as torch's is, or has the dtype of autocast where a product follows, which
    would cast it. Under autocast on a CPU, torch is slow on short rows of bfloat16 numbers, which a narrow network has
    many of: they pass through float32.

    Args:
        before_product: whether all that follows is linear layers and convolutions.
        *args: those of `torch.nn.LayerNorm`, `**kwargs` too.
    """

    before_product = False

    def __init__(self, *args: Any, before_product: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.before_product = before_product

    def forward(self, input: Tensor) -> Tensor:
        """Normalize each row of (..., C)."""
        if self.has_kernel(input):
            return layer_norm(input, self.weight, self.bias, self.eps, dtype=self.result_dtype(input))
        if (
            input.dtype in (torch.bfloat16, torch.float16)
            and self.weight.dtype == torch.float32
            and input.device.type == "cpu"
            and input.shape[-1] < SLOW_CHANNELS
        ):
            return super().forward(input.float()).to(input.dtype)
        return super().forward(input)

    def has_kernel(self, x: Tensor) -> bool:
        """Whether this norm of `x` runs as a kernel of ours."""
        return have_kernels(x) and self.bias is not None and x.shape[-1:] == self.normalized_shape

    def result_dtype(self, x: Tensor) -> torch.dtype:
        """The dtype of the norm of `x` where it runs as a kernel of ours."""
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            return x.dtype
        return torch.get_autocast_dtype(device) if self.before_product else torch.float32


def norm_gelu(x: Tensor, norm: nn.Module, activation: nn.Module) -> Tensor:
    """Return activation(norm(x)), (..., C), in one step where both are what they were made as."""
    if (
        isinstance(norm, LayerNorm)
        and type(activation) is nn.GELU
        and activation.approximate == "none"
        and norm.has_kernel(x)
        and not has_hooks(norm, activation)
    ):
        return layer_norm(x, norm.weight, norm.bias, norm.eps, gelu=True, dtype=norm.result_dtype(x))
    return activation(norm(x))
