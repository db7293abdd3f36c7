"""The feed-forward part of a transformer layer.

Shape legend: ... any leading sizes, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class FeedForward(nn.Module):
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

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.fc2(F.relu(self.fc1(x), inplace=True))
