"""The inference twin of a block's perceptron.

Shape legend: ... any leading sizes, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.layers.fused.twin import Twin, packed_weights
from internimage.layers.mlp import CHUNK_BYTES, MLP
from internimage.ops.fused import Residual, add_residual_, gelu_, packed_perceptron


class FusedMLP(Twin, MLP, of=MLP):
    """A perceptron that ends with the residual sum of its branch."""

    linear_layers = ("fc1", "fc2")

    def add_to(self, shortcut: Tensor, x: Tensor, residual: Residual) -> tuple[Tensor, Tensor | None]:
        """Run this layer as a residual branch; `shortcut` may be overwritten.

        Args:
            shortcut: (..., C) contiguous.
            x: (..., C) contiguous input.
            residual: scale and norms.

        Returns:
            shortcut + gamma * norm(self(x)), and `next_norm` of it, None without `next_norm`.
        """
        if weights := packed_weights(x, self.fc1, self.fc2):
            return packed_perceptron(x, weights, shortcut, residual, activation="gelu")
        normed = None if residual.next_weight is None else torch.empty_like(shortcut)
        x_rows, sums = x.flatten(0, -2), shortcut.flatten(0, -2)
        after = None if normed is None else normed.flatten(0, -2)
        step = max(1, CHUNK_BYTES // (self.fc1.out_features * x.element_size()))
        if x.is_cuda:
            step = max(1, len(x_rows))
        for first in range(0, len(x_rows), step):  # on a CPU the hidden rows of a part stay in the cache
            part = slice(first, first + step)
            y = self.fc2(gelu_(self.fc1(x_rows[part])))
            add_residual_(sums[part], y, residual, None if after is None else after[part])
        return shortcut, normed
