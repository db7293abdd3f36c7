"""Inference twins of the parts of a transformer layer, and the norm behind a shortcut.

Shape legend: ... any leading sizes, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from internimage.layers.attention import Attention
from internimage.layers.deform_attention import MSDeformAttention
from internimage.layers.feed_forward import FeedForward
from internimage.layers.fused.packed_linear import Affine
from internimage.layers.fused.twin import FusedLinear, Twin, packed_weights
from internimage.ops.fused import Residual, add_shortcut_, packed_perceptron
from internimage.ops.fused.rules import can_fuse


class FusedAttention(Twin, Attention, of=Attention):
    """Attention with packed projections."""

    linear_layers = ("out_proj",)

    def packable(self) -> dict[str, tuple[Affine]]:
        """The three parts of the input projection."""
        parts = zip(("query", "key", "value"), self.input_projections(), strict=True)
        return {name: (Affine(*part),) for name, part in parts}

    def project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """The three inputs through their projections."""
        if (packed := self.usable) is None:
            return super().project(query, key, value)
        return [packed["query"](query), packed["key"](key), packed["value"](value)]


class FusedMSDeformAttention(Twin, MSDeformAttention, of=MSDeformAttention):
    """Deformable attention with packed projections."""

    linear_layers = ("value_proj", "sampling_offsets", "attention_weights", "output_proj")


class FusedFeedForward(Twin, FeedForward, of=FeedForward):
    """A feed-forward part whose activation happens in the registers of the matrix product."""

    linear_layers = ("fc1", "fc2")

    def rows(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C) at once."""
        if isinstance(self.fc1, FusedLinear) and (packed := self.fc1.usable):
            return self.fc2(packed["all"](x, activation="relu"))
        return super().rows(x)


def add_norm(x: Tensor, branch: Tensor, norm: nn.Module, *, backend: str = "auto") -> Tensor:
    """Return norm(x + branch), (..., C), for a layer norm; `branch` is overwritten when there are no gradients."""
    assert isinstance(norm, nn.LayerNorm)
    if can_fuse(branch, backend=backend) and branch.is_contiguous() and branch.dtype == x.dtype:
        normed = add_shortcut_(branch, x.contiguous(), Residual.of(next_norm=norm))
        assert normed is not None
        return normed
    return norm(x + branch)


def feed_forward_norm(x: Tensor, layer: nn.Module, norm: nn.Module, *, backend: str = "auto") -> Tensor:
    """Return norm(x + layer(x)), (..., C), for a `FeedForward` or a module of its kind; one kernel if possible."""
    if (
        isinstance(layer, FusedFeedForward)
        and can_fuse(x, backend=backend)
        and (weights := packed_weights(x, layer.fc1, layer.fc2))
    ):
        assert isinstance(norm, nn.LayerNorm)
        _, normed = packed_perceptron(x, weights, x, Residual.of(next_norm=norm), activation="relu")
        assert normed is not None
        return normed
    return add_norm(x, layer(x), norm, backend=backend)
