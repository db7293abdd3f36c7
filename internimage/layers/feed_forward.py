"""The feed-forward part of a transformer layer, and the norm behind a shortcut.

Shape legend: ... any leading sizes, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.layers.fused.rules import can_fuse, may_divide
from internimage.layers.mlp import CHUNK_BYTES
from internimage.layers.packed_linear import Packable, packed_weights
from internimage.ops.fused import Residual, add_shortcut_, packed_perceptron


class FeedForward(Packable):
    """Linear, ReLU, linear over the last axis; the shortcut is the caller's.

    Args:
        channels: width C of input and output.
        hidden_channels: width between the two linear layers.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.fc2 = nn.Linear(hidden_channels, channels)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def packable(self) -> dict[str, tuple[nn.Linear, ...]]:
        """Name the products of this module."""
        return {"fc1": (self.fc1,), "fc2": (self.fc2,)}

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        if not may_divide(x):
            return self._rows(x)
        # The hidden rows of a part stay in the cache between the two products, and never exist as a whole.
        rows = max(1, CHUNK_BYTES // (self.fc1.out_features * x.element_size()))
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        for part, y in zip(x.flatten(0, -2).split(rows), out.view(-1, x.shape[-1]).split(rows), strict=True):
            y.copy_(self._rows(part))
        return out

    def _rows(self, x: Tensor) -> Tensor:
        if (products := self.products) is None:
            return self.fc2(F.relu(self.fc1(x), inplace=True))
        return products["fc2"](products["fc1"](x, activation="relu"))


def add_norm(x: Tensor, branch: Tensor, norm: nn.Module, *, backend: str = "auto") -> Tensor:
    """Return norm(x + branch), (..., C), for a layer norm; `branch` is overwritten when there are no gradients."""
    assert isinstance(norm, nn.LayerNorm)
    if can_fuse(branch, backend=backend) and branch.is_contiguous() and branch.dtype == x.dtype:
        normed = add_shortcut_(branch, x.contiguous(), Residual.of(next_norm=norm))
        assert normed is not None
        return normed
    return norm(x + branch)


def feed_forward_norm(x: Tensor, layer: nn.Module, norm: nn.Module, *, backend: str = "auto") -> Tensor:
    """Return norm(x + layer(x)), (..., C), for a `FeedForward` or a module of its kind; one kernel if possible."""
    if isinstance(layer, FeedForward) and (products := layer.products) and can_fuse(x, backend=backend):
        layers = packed_weights(products["fc1"], products["fc2"])
        if layers is not None and layers[0].blocks.dtype == x.dtype:
            assert isinstance(norm, nn.LayerNorm)
            _, normed = packed_perceptron(x, layers, x, Residual.of(next_norm=norm), activation="relu")
            assert normed is not None
            return normed
    return add_norm(x, layer(x), norm, backend=backend)
