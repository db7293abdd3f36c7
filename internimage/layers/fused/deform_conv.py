"""The inference twins of the operator modules.

Shape legend: N images, H W map, C channels. Maps are channels last, (N, H, W, C).
"""

from __future__ import annotations

from torch import Tensor, nn

from internimage.layers.deform_conv import DCNv3, DCNv4, DeformConv
from internimage.layers.fused.packed_linear import PackedLinear
from internimage.layers.fused.twin import Twin, packed_weights
from internimage.ops.fused import Residual, add_shortcut_, depthwise_norm_gelu, packed_perceptron
from internimage.ops.fused.rules import can_fuse


class FusedDeformConv(Twin, DeformConv):
    """An operator module that ends with the residual sum of its branch."""

    def add_to(self, shortcut: Tensor, x: Tensor, residual: Residual) -> tuple[Tensor, Tensor | None]:
        """Run this layer as a residual branch.

        Args:
            shortcut: (N, H, W, C) contiguous map.
            x: (N, H, W, C) contiguous input.
            residual: scale and norms.

        Returns:
            shortcut + gamma * norm(self(x)), and `next_norm` of it, None without `next_norm`.
        """
        y = self.attend(x)
        if weights := packed_weights(y, self.output_proj):
            return packed_perceptron(y, weights, shortcut, residual)
        y = self.output_proj(y)
        return y, add_shortcut_(y, shortcut, residual)


class FusedDCNv3(FusedDeformConv, DCNv3, of=DCNv3):
    """DCNv3 with offsets and weights from one linear layer, after one step for convolution, norm and GELU."""

    linear_layers = ("input_proj", "output_proj")

    def packable(self) -> dict[str, tuple[nn.Linear, ...]]:
        """Offsets and weights."""
        return {"offset_mask": (self.offset, self.mask)}

    def query(self, x: Tensor) -> Tensor:
        """What offsets and weights are computed from, (N, H, W, C)."""
        if not self.training and x.is_contiguous() and can_fuse(x, backend=self.backend):
            return depthwise_norm_gelu(x, self.dw_conv, self.dw_norm)
        return super().query(x)

    def offset_and_mask(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (N, H, W, G*K*2) and logits of the weights (N, H, W, G*K)."""
        if (packed := self.usable) is None:
            return super().offset_and_mask(query)
        return split(packed["offset_mask"], query)


class FusedDCNv4(FusedDeformConv, DCNv4, of=DCNv4):
    """DCNv4 whose values, offsets and weights come from one linear layer where there is no convolution between them."""

    linear_layers = ("value_proj", "offset_mask", "output_proj")

    def packable(self) -> dict[str, tuple[nn.Linear, ...]]:
        """Values, offsets and weights."""
        return {"value_offset_mask": (self.value_proj, self.offset_mask)} if self.offset_mask_dw is None else {}

    def value_and_offset_mask(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (N, H, W, C) and packed offsets and weights (N, H, W, P)."""
        if (packed := self.usable) is None:
            return super().value_and_offset_mask(x)
        return split(packed["value_offset_mask"], x)


def split(joined: PackedLinear, x: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs of two layers with the same input: views, which the operators read in place."""
    first, second = joined(x).split_with_sizes(joined.sizes, dim=-1)
    return first, second
