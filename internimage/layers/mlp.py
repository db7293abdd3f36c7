"""The two-layer perceptron of a block.

Shape legend: ... any leading sizes, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear, GELU, dropout, linear, dropout over the last axis.

    Args:
        channels: width C of input and output.
        hidden_channels: width between the two linear layers.
        drop_rate: dropout probability, 0..1.
    """

    def __init__(self, channels: int, hidden_channels: int, *, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_channels, channels)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
