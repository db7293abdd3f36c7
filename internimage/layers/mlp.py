"""The two-layer perceptron of a block.

Shape legend: ... any leading sizes, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

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
        hidden, drop = self.act(self.fc1(x)), self.drop
        return drop(self.fc2(drop(hidden))) if drop.training else self.fc2(hidden)
