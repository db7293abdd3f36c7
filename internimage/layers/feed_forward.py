"""The feed-forward part of a transformer layer.

Shape legend: ... any leading sizes, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.layers.mlp import CHUNK_BYTES
from internimage.ops.fused.rules import may_divide


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
        if not may_divide(x):
            return self.rows(x)
        # The hidden rows of a part stay in the cache between the two layers, and never exist as a whole.
        rows = max(1, CHUNK_BYTES // (self.fc1.out_features * x.element_size()))
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        for part, y in zip(x.flatten(0, -2).split(rows), out.view(-1, x.shape[-1]).split(rows), strict=True):
            y.copy_(self.rows(part))
        return out

    def rows(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C) at once."""
        return self.fc2(F.relu(self.fc1(x), inplace=True))
