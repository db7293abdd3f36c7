"""The two-layer perceptron of a block.

Shape legend: ... any leading sizes, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        fc1, fc2 = self._products()
        return self.drop(fc2(self.drop(self.act(fc1(x)))))

    def parts(self, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """For inference: rows of x (R, C) and the result for them, piece by piece in order."""
        fc1, fc2 = self._products()
        step = max(1, CHUNK_BYTES // (self.fc1.out_features * x.element_size()))
        for first in range(0, len(x), step):
            rows = slice(first, first + step)
            yield rows, fc2(rowwise.gelu_(fc1(x[rows])))

    def _products(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        products = self.products
        return (products["fc1"], products["fc2"]) if products else (self.fc1, self.fc2)
