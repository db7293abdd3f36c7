"""Attention of queries over keys with a mask that all heads share.

Shape legend: N images, Q queries, S keys, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention with separate inputs for queries, keys and values.

    Unlike `torch.nn.MultiheadAttention` it takes one mask for all heads, without a copy for each of them.

    Args:
        channels: width C of all inputs and of the output.
        num_heads: attention heads; must divide C.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"num_heads must divide channels: {channels} channels, {num_heads} heads")
        self.num_heads = num_heads
        self.in_proj = nn.Linear(channels, 3 * channels)
        self.out_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw Xavier-uniform projections, biases zero."""
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def input_projections(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases for queries, keys and values: the rows of `in_proj`."""
        return list(zip(self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3), strict=True))

    def project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """The three inputs through their projections."""
        return [F.linear(x, *part) for x, part in zip((query, key, value), self.input_projections(), strict=True)]

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, allowed: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            query: (N, Q, C).
            key: (N, S, C).
            value: (N, S, C).
            allowed: (N, Q, S) bool, True where a query may look; None allows everything.

        Returns:
            (N, Q, C).
        """
        q, k, v = map(self._heads, self.project(query, key, value))
        mask = None if allowed is None else allowed[:, None]  # (N, 1, Q, S)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (N, heads, Q, C / heads)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """Split (N, T, C) into (N, heads, T, C / heads)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
