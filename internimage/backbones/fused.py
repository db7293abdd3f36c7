"""The inference twins of the network's parts: each norm comes out of the pass that computes its input.

A part that knows which norm follows returns its output and `normed`, that norm of it; None without a norm, or where the
plain part ran. Shape legend: N images, H W map, C channels. Maps are channels last, (N, H, W, C).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.backbones.blocks import Block, Downsample, Level, Stem, channels_last
from internimage.layers.fused import FusedDeformConv, FusedMLP, Twin
from internimage.layers.fused.packed_linear import Affine, PackedLinear, conv_norm, is_emulated, patch_layers
from internimage.ops.fused import Residual
from internimage.ops.fused.rules import can_fuse

Normed = tuple[Tensor, Tensor | None]


class FusedStem(Twin, Stem, of=Stem):
    """Both convolutions as matrix products of patches, with norms and GELU."""

    def packable(self) -> dict[str, tuple[Affine]]:
        """Both convolutions."""
        return patch_layers(conv1=self.conv1, conv2=self.conv2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (N, in_chans, H, W) pixels to an (N, H/4, W/4, C) map."""
        packed = self.usable
        return super().forward(pixels) if packed is None else self.with_norm(pixels, packed, None)[0]

    def with_norm(self, pixels: Tensor, packed: dict[str, PackedLinear], next_norm: nn.LayerNorm | None) -> Normed:
        """The map, and `next_norm` of it."""
        x, _ = conv_norm(channels_last(pixels), packed["conv1"], self.conv1, self.norm1, activation="gelu")
        return conv_norm(x, packed["conv2"], self.conv2, self.norm2, next_norm=next_norm)


class FusedDownsample(Twin, Downsample, of=Downsample):
    """The convolution as a matrix product of patches, with its norm."""

    def packable(self) -> dict[str, tuple[Affine]]:
        """The convolution."""
        return patch_layers(conv=self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, H/2, W/2, 2C)."""
        packed = self.usable
        return super().forward(x) if packed is None else self.with_norm(x, packed, None)[0]

    def with_norm(self, x: Tensor, packed: dict[str, PackedLinear], next_norm: nn.LayerNorm | None) -> Normed:
        """The map, and `next_norm` of it."""
        return conv_norm(x, packed["conv"], self.conv, self.norm, next_norm=next_norm)


class FusedBlock(Twin, Block, of=Block):
    """Two residual branches, each with its norms and the sum in one pass over its output."""

    @property
    def operator(self) -> FusedDeformConv | None:
        """The operator module, None where it or the perceptron is no twin."""
        parts = self._modules  # read often, and several times as fast as by attribute
        dcn = parts["dcn"]
        return dcn if isinstance(dcn, FusedDeformConv) and isinstance(parts["mlp"], FusedMLP) else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, H, W, C)."""
        operator = self.operator
        if self.training or operator is None or not can_fuse(x, backend=operator.backend):
            return super().forward(x)
        return self.with_norm(x.contiguous(), None, None)[0]

    def with_norm(self, x: Tensor, normed: Tensor | None, next_norm: nn.LayerNorm | None) -> Normed:
        """The output, and `next_norm` of it.

        Args:
            x: (N, H, W, C) contiguous map.
            normed: `first_norm` of it when that is at hand.
            next_norm: what the output goes through next.
        """
        parts = cast("dict[str, Any]", self._modules)
        norm1, norm2 = parts["norm1"], parts["norm2"]
        if self.post_norm:
            norms, second_norm = (norm1, norm2), None
        else:
            norms, second_norm = (parts.get("res_post_norm1"), parts.get("res_post_norm2")), norm2
            normed = _norm(norm1, x) if normed is None else normed
        residual = Residual.of(gamma=self.gamma1, norm=norms[0], next_norm=second_norm)
        x, normed = parts["dcn"].add_to(x, x if normed is None else normed, residual)
        residual = Residual.of(gamma=self.gamma2, norm=norms[1], next_norm=next_norm)
        return parts["mlp"].add_to(x, x if normed is None else normed, residual)

    @property
    def first_norm(self) -> nn.LayerNorm | None:
        """The norm that the block applies to its input before all else."""
        return None if self.post_norm else cast("nn.LayerNorm", self._modules["norm1"])


class FusedLevel(Twin, Level, of=Level):
    """The blocks of one resolution, each of which also takes the norm that comes after it.

    Where the processor would emulate bfloat16, maps are float32 from the first block to the last.
    """

    is_wide = False  # whether bfloat16 maps become float32

    def pack(self) -> None:
        """Copy the weights into the layout of the matrix product."""
        super().pack()
        first = self.blocks[0]
        self.is_wide = isinstance(first, FusedBlock) and first.operator is not None and is_emulated(first.norm1.weight)

    def forward(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        """Map (N, H, W, C) to the output of this level; `normed`: `first_norm` of x, if known."""
        blocks = [block for block in self.blocks if isinstance(block, FusedBlock)]
        operators = [block.operator for block in blocks]
        operator = operators[0] if len(blocks) == len(self.blocks) and None not in operators else None
        if self.training or operator is None or not can_fuse(x, backend=operator.backend):
            return super().forward(x)
        x, dtype, extra_norms = x.contiguous(), x.dtype, self.extra_norms()
        if self.is_wide and dtype is torch.bfloat16:
            x, normed = x.float(), None if normed is None else normed.float()
        for i, block in enumerate(blocks):
            is_last = i + 1 == len(blocks)
            next_norm = extra_norms.get(i) or (self.norm if is_last else blocks[i + 1].first_norm)
            x, normed = block.with_norm(x, normed, next_norm)
            if normed is not None and (is_last or i in extra_norms):
                x, normed = normed, None
        x = x.to(dtype)
        return self.norm(x) if self.norm is not None and len(blocks) - 1 in extra_norms else x

    @property
    def first_norm(self) -> nn.LayerNorm | None:
        """The norm that the level applies to its input before all else."""
        first = self.blocks[0]
        return first.first_norm if isinstance(first, FusedBlock) else None


def fused_maps(
    stem: FusedStem, pos_drop: nn.Module, levels: Sequence[Level], out_indices: tuple[int, ...], pixels: Tensor
) -> tuple[Tensor, ...]:
    """Run the network, each level's first norm computed together with its input; (N, C, H, W) maps."""
    x, normed = _enter(stem, pixels, levels[0])
    x, normed = pos_drop(x), None if pos_drop.training else normed
    maps: list[Tensor] = []
    for i, level in enumerate(levels):
        x = level(x, normed) if isinstance(level, FusedLevel) else level(x)
        if i in out_indices:
            maps.append(x.permute(0, 3, 1, 2))
        if i == out_indices[-1] or level.downsample is None:
            break
        x, normed = _enter(level.downsample, x, levels[i + 1])
    return tuple(maps)


def _norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """A norm of (N, H, W, C), whose dtype may be wider than that of the weights."""
    if x.dtype is norm.weight.dtype:
        return norm(x)
    return F.layer_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps)


def _enter(step: nn.Module, x: Tensor, level: Level) -> Normed:
    """Apply the step that leads to a level; from packed weights the level's first norm comes along."""
    if isinstance(step, FusedStem | FusedDownsample) and isinstance(level, FusedLevel) and (packed := step.usable):
        return step.with_norm(x, packed, level.first_norm)
    return step(x), None
