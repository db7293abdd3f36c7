"""Attention of queries over keys with a mask that all heads share.

Shape legend: N images, Q queries, S keys, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from internimage.layers.packed_linear import Affine, Packable


class Attention(Packable):
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

    def packable(self) -> dict[str, tuple[nn.Linear | Affine, ...]]:
        """Name the products of this module."""
        parts = zip(("query", "key", "value"), self._projections(), strict=True)
        return {**{name: (part,) for name, part in parts}, "output": (self.out_proj,)}

    def _projections(self) -> list[Affine]:
        """The rows of `in_proj` for queries, keys and values."""
        return list(map(Affine, self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3)))

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
        inputs, products = {"query": query, "key": key, "value": value}, self.products
        if products:
            projected = [products[name](x) for name, x in inputs.items()]
        else:
            projected = [F.linear(x, *part) for x, part in zip(inputs.values(), self._projections(), strict=True)]
        q, k, v = map(self._heads, projected)
        mask = None if allowed is None else allowed[:, None]  # (N, 1, Q, S)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (N, heads, Q, C / heads)
        attended = attended.transpose(1, 2).flatten(2)
        return products["output"](attended) if products else self.out_proj(attended)

    def _heads(self, x: Tensor) -> Tensor:
        """Split (N, T, C) into (N, heads, T, C / heads)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
