"""Attention pooling: one query, the mean of all tokens, attends to every token.

Shape legend: N images, T tokens, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AttentionPool(nn.Module):
    """Pool (N, T, C) tokens to one (N, out_channels) vector; no residual, no positional embedding.

    Args:
        channels: width C of the tokens.
        num_heads: attention heads; must divide C.
        out_channels: width of the pooled vector.
        eps: epsilon of the three norms.

    Source: InternImage release, classification head of the H and G models.
    """

    def __init__(self, channels: int, *, num_heads: int, out_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"num_heads must divide channels: {channels} channels, {num_heads} heads")
        self.num_heads = num_heads
        self.norm_q = nn.LayerNorm(channels, eps=eps)
        self.norm_k = nn.LayerNorm(channels, eps=eps)
        self.norm_v = nn.LayerNorm(channels, eps=eps)
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.proj = nn.Linear(channels, out_channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (N, T, C) to (N, out_channels)."""
        query = tokens.mean(dim=1, keepdim=True)  # (N, 1, C)
        q = self._heads(self.q(self.norm_q(query)))
        k = self._heads(self.k(self.norm_k(tokens)))
        v = self._heads(self.v(self.norm_v(tokens)))
        pooled = F.scaled_dot_product_attention(q, k, v)  # (N, heads, 1, C / heads)
        return self.proj(pooled.transpose(1, 2).flatten(1))

    def _heads(self, x: Tensor) -> Tensor:
        """Split (N, T, C) into (N, heads, T, C / heads)."""
        return torch.unflatten(x, -1, (self.num_heads, -1)).transpose(1, 2)
