"""The two-layer perceptron of a block.

Shape legend: ... any leading sizes, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from internimage.layers.packed_linear import Packable
from internimage.ops import rowwise

# Inference computes the hidden rows in pieces of this size, which stay in the cache between the two products.
CHUNK_BYTES = 4 * 2**20


class MLP(Packable):
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

    def packable(self) -> dict[str, tuple[nn.Linear, ...]]:
        """Name the products of this module."""
        return {"fc1": (self.fc1,), "fc2": (self.fc2,)}

    def forward(self, x: Tensor, *, fuse: bool = False) -> Tensor:
        """Map (..., C) to (..., C); `fuse` takes the inference-only steps of `internimage.ops.rowwise`."""
        products = self.products
        fc1, fc2 = (products["fc1"], products["fc2"]) if products else (self.fc1, self.fc2)
        if fuse:
            rows = max(1, CHUNK_BYTES // (self.fc1.out_features * x.element_size()))
            parts = [fc2(rowwise.gelu_(fc1(part))) for part in x.flatten(0, -2).split(rows)]
            return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(x.shape)
        return self.drop(fc2(self.drop(self.act(fc1(x)))))
