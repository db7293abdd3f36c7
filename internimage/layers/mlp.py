"""The two-layer perceptron of a block.

Shape legend: ... any leading sizes, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from internimage.layers.packed_linear import Packable, packed_weights
from internimage.ops.fused import Residual, add_residual_, gelu_, packed_perceptron

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

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        fc1, fc2 = self._products()
        return self.drop(fc2(self.drop(self.act(fc1(x)))))

    def join(self, x: Tensor, shortcut: Tensor, residual: Residual) -> tuple[Tensor, Tensor | None]:
        """For inference: this layer as a residual branch; `shortcut` may be overwritten.

        Args:
            x: (..., C) contiguous.
            shortcut: (..., C) contiguous.
            residual: scale and norms.

        Returns:
            shortcut + gamma * norm(self(x)), and `next_norm` of it, None without `next_norm`.
        """
        products = self.products
        if products and (layers := packed_weights(products["fc1"], products["fc2"])):
            return packed_perceptron(x, layers, shortcut, residual, activation="gelu")
        fc1, fc2 = self._products()
        normed = None if residual.next_weight is None else torch.empty_like(shortcut)
        x_rows, sums = x.flatten(0, -2), shortcut.flatten(0, -2)
        after = None if normed is None else normed.flatten(0, -2)
        step = max(1, CHUNK_BYTES // (self.fc1.out_features * x.element_size()))
        for first in range(0, len(x_rows), step):  # the hidden rows of a part stay in the cache
            part = slice(first, first + step)
            y = fc2(gelu_(fc1(x_rows[part])))
            add_residual_(sums[part], y, residual, None if after is None else after[part])
        return shortcut, normed

    def _products(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        products = self.products
        return (products["fc1"], products["fc2"]) if products else (self.fc1, self.fc2)
