"""The two-layer perceptron of a block.

Shape legend: ... any leading sizes, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from internimage.ops import rowwise


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

    def forward(self, x: Tensor, *, fuse: bool = False) -> Tensor:
        """Map (..., C) to (..., C); `fuse` takes the inference-only steps of `internimage.ops.rowwise`."""
        if fuse:
            return self.fc2(rowwise.gelu_(self.fc1(x)))
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
