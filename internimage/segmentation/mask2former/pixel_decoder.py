"""The pixel decoder of Mask2Former: deformable attention over three levels, then one step up to the finest.

Shape legend: N images, C channels, H_i W_i map of level i (strides 4, 8, 16, 32), S pixels of three levels together.
Maps are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from internimage.layers.conv_norm import ConvNorm
from internimage.layers.deform_attention import MSDeformAttention
from internimage.layers.feed_forward import FeedForward
from internimage.layers.fused import add_norm, feed_forward_norm
from internimage.layers.position import sine_position
from internimage.segmentation.config import Mask2FormerConfig
from internimage.segmentation.upernet import resize_map
from internimage.types import Features

NUM_LEVELS = 3


class PixelFeatures(NamedTuple):
    """What the transformer decoder looks at.

    `mask_features` is (N, C, H_0, W_0) at stride 4; `memory[i]` is (N, C, H, W) at strides 32, 16 and 8.
    """

    mask_features: Tensor
    memory: tuple[Tensor, ...]


class PixelEncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward part, each followed by a shortcut and a norm."""

    def __init__(self, config: Mask2FormerConfig, backend: str) -> None:
        super().__init__()
        self.backend = backend
        channels = config.channels
        self.attention = MSDeformAttention(
            channels,
            config.num_heads,
            num_levels=NUM_LEVELS,
            num_points=config.encoder_points,
            softmax=config.encoder_softmax,
            backend=backend,
        )
        self.norm1 = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels, config.encoder_hidden_channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """Map (N, S, C) to (N, S, C)."""
        x = add_norm(x, self.attention(x + position, x, reference, shapes), self.norm1, backend=self.backend)
        return feed_forward_norm(x, self.feed_forward, self.norm2, backend=self.backend)


class PixelDecoder(nn.Module):
    """Maps of a backbone in, features for masks and for queries out.

    Source: Mask2Former, section 3.3 and appendix, arXiv 2112.01527.
    """

    def __init__(self, config: Mask2FormerConfig, in_channels: Sequence[int], *, backend: str) -> None:
        super().__init__()
        self.channels = channels = config.channels
        coarse_first = list(in_channels)[:0:-1]  # strides 32, 16, 8
        self.input_projections = nn.ModuleList(
            ConvNorm(width, channels, norm="group", relu=False, bias=True) for width in coarse_first
        )
        self.level_embedding = nn.Parameter(torch.empty(NUM_LEVELS, channels))
        nn.init.normal_(self.level_embedding)
        self.layers = nn.ModuleList(PixelEncoderLayer(config, backend) for _ in range(config.encoder_layers))
        self.lateral = ConvNorm(in_channels[0], channels, norm="group", relu=False)
        self.output = ConvNorm(channels, channels, 3, norm="group")
        self.mask_projection = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Features) -> PixelFeatures:
        """Map features of four levels to mask features and memory."""
        finest, *others = features.maps
        maps = [project(x) for project, x in zip(self.input_projections, reversed(others), strict=True)]
        shapes = [(x.shape[2], x.shape[3]) for x in maps]
        x = torch.cat([flatten_map(m) for m in maps], dim=1)  # (N, S, C)
        position = self._position(shapes, x)
        reference = cell_centers(shapes, x)
        for layer in self.layers:
            x = layer(x, position, reference, shapes)
        parts = x.split([h * w for h, w in shapes], dim=1)
        memory = tuple(p.transpose(1, 2).unflatten(2, hw) for p, hw in zip(parts, shapes, strict=True))
        y = self.lateral(finest)
        y += resize_map(memory[-1], finest.shape[2:])
        return PixelFeatures(self.mask_projection(self.output(y)), memory)

    def _position(self, shapes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
        """Return the (S, C) encoding of place and level."""
        parts = [
            sine_position(hw, self.channels, device=like.device).to(like.dtype) + level
            for hw, level in zip(shapes, self.level_embedding, strict=True)
        ]
        return torch.cat(parts)


def flatten_map(x: Tensor) -> Tensor:
    """Map (N, C, H, W) to (N, H * W, C); a view of channels-last memory."""
    return x.flatten(2).transpose(1, 2)


def cell_centers(shapes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """Return the (1, S, L, 2) centers (x, y) of all cells, 0..1, the same for every level looked at."""
    parts = []
    for height, width in shapes:
        ys = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) / height
        xs = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) / width
        parts.append(torch.stack((xs.expand(height, -1), ys[:, None].expand(-1, width)), dim=-1).flatten(0, 1))
    return torch.cat(parts)[None, :, None].expand(-1, -1, len(shapes), -1)
