"""The two-layer perceptron of a block.

Shape legend: ... any leading sizes, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.layers.hooks import has_hooks
from internimage.ops.fused import gelu_linear, have_kernels

# Inference computes the hidden rows in pieces of this size, which stay in the cache between the two linear layers.
CHUNK_BYTES = 4 * 2**20


class MLP(nn.Module):
    """Linear, GELU, dropout, linear, dropout over the last axis.

    Args:
        channels: width C of input and output.
        hidden_channels: width between the two linear layers.
        drop_rate: dropout probability, 0..1.
        output_bias: whether the second linear layer has a bias.
    """

    def __init__(
        self, channels: int, hidden_channels: int, *, drop_rate: float = 0.0, output_bias: bool = True
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_channels, channels, bias=output_bias)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        if self._keeps_less(x):
            y, bias = self.without_bias(x)
            return y if bias is None else y + bias.to(y.dtype)
        hidden, drop = self.act(self.fc1(x)), self.drop
        return drop(self.fc2(drop(hidden))) if drop.training else self.fc2(hidden)

    def without_bias(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map (..., C) to (..., C), and return a bias (C,) that is still to be added, where it is added elsewhere."""
        if not self._keeps_less(x):
            return self(x), None
        hidden = F.linear(x, self.fc1.weight)  # its bias is added, and has its gradient, together with the GELU
        return gelu_linear(hidden, self.fc1.bias, self.fc2.weight.to(hidden.dtype)), self.fc2.bias

    def _keeps_less(self, x: Tensor) -> bool:
        """Whether to keep for the gradients what the GELU was given, not what it returned as well: on a GPU."""
        return (
            torch.is_grad_enabled()
            and have_kernels(x)
            and not (self.training and self.drop.p > 0)
            and type(self.fc1) is type(self.fc2) is nn.Linear
            and type(self.act) is nn.GELU
            and self.fc1.bias is not None
            and not has_hooks(self.fc1, self.act, self.fc2)
        )
