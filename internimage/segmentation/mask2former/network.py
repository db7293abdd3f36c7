"""Mask2Former: queries that each find one class and its mask, by attention inside of the mask found so far.

Shape legend: N images, Q queries, C channels, K classes, H W map at stride 4, S pixels of a coarser level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.layers.attention import Attention
from internimage.layers.feed_forward import FeedForward
from internimage.layers.fused import add_norm, feed_forward_norm
from internimage.layers.position import sine_position
from internimage.segmentation.config import Mask2FormerConfig
from internimage.segmentation.mask2former.pixel_decoder import NUM_LEVELS, PixelDecoder, PixelFeatures, flatten_map
from internimage.segmentation.upernet import resize_map
from internimage.types import Features


class QueryOutput(NamedTuple):
    """What the queries say after one layer: (N, Q, K + 1) class logits, the last for "nothing", and masks.

    `mask_logits` is (N, Q, H, W) at stride 4.
    """

    class_logits: Tensor
    mask_logits: Tensor


class MaskDecoderLayer(nn.Module):
    """Attention to pixels inside of the masks, attention among queries, a feed-forward part; each with a norm."""

    def __init__(self, config: Mask2FormerConfig, backend: str) -> None:
        super().__init__()
        self.backend = backend
        channels, num_heads = config.channels, config.num_heads
        self.cross_attention = Attention(channels, num_heads)
        self.norm1 = nn.LayerNorm(channels)
        self.self_attention = Attention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels, config.decoder_hidden_channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, query_position: Tensor, memory: Tensor, position: Tensor, allowed: Tensor) -> Tensor:
        """Map (N, Q, C) queries to (N, Q, C); `memory` is (N, S, C) and `allowed` (N, Q, S)."""
        attended = self.cross_attention(x + query_position, memory + position, memory, allowed=allowed)
        x = add_norm(x, attended, self.norm1, backend=self.backend)
        placed = x + query_position
        x = add_norm(x, self.self_attention(placed, placed, x), self.norm2, backend=self.backend)
        return feed_forward_norm(x, self.feed_forward, self.norm3, backend=self.backend)


class Mask2FormerHead(nn.Module):
    """Maps of four levels in, class scores of every pixel at the finest level out.

    Source: Mask2Former, section 3, arXiv 2112.01527.
    """

    def __init__(
        self, config: Mask2FormerConfig, in_channels: Sequence[int], num_classes: int, *, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.pixel_decoder = PixelDecoder(config, in_channels, backend=backend)
        self.layers = nn.ModuleList(MaskDecoderLayer(config, backend) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(channels)
        self.query_position = nn.Parameter(torch.empty(config.num_queries, channels))
        self.query_features = nn.Parameter(torch.empty(config.num_queries, channels))
        self.level_embedding = nn.Parameter(torch.empty(NUM_LEVELS, channels))
        for embedding in (self.query_position, self.query_features, self.level_embedding):
            nn.init.normal_(embedding)
        self.classifier = nn.Linear(channels, num_classes + 1)
        self.mask_fc1 = nn.Linear(channels, channels)
        self.mask_fc2 = nn.Linear(channels, channels)
        self.mask_fc3 = nn.Linear(channels, channels)

    def forward(self, features: Features) -> Tensor:
        """Map features to (N, K, H, W) scores: over all queries, the sum of class probability times mask."""
        pixels = self.pixel_decoder(features)
        return semantic_scores(self._output(self._decode(pixels)[-1], pixels.mask_features))

    def layer_outputs(self, features: Features) -> list[QueryOutput]:
        """Return what the queries say before the first layer and after each layer, for training."""
        pixels = self.pixel_decoder(features)
        return [self._output(x, pixels.mask_features) for x in self._decode(pixels)]

    def _decode(self, pixels: PixelFeatures) -> list[Tensor]:
        """Return the (N, Q, C) queries before the first layer and after each layer."""
        n = pixels.mask_features.shape[0]
        levels = [
            (
                flatten_map(x) + level,
                sine_position((x.shape[2], x.shape[3]), x.shape[1], device=x.device).to(x.dtype),
                # Resizing the features once is the same as resizing every mask made of them.
                resize_map(pixels.mask_features.detach(), x.shape[2:]).flatten(2),
            )
            for x, level in zip(pixels.memory, self.level_embedding, strict=True)
        ]
        x = self.query_features.expand(n, -1, -1)
        query_position = self.query_position.expand(n, -1, -1)
        states = [x]
        for i, layer in enumerate(self.layers):
            memory, position, mask_features = levels[i % len(levels)]
            x = layer(x, query_position, memory, position, self._allowed(x, mask_features))
            states.append(x)
        return states

    def _allowed(self, x: Tensor, mask_features: Tensor) -> Tensor:
        """Return (N, Q, S): whether a pixel lies in the mask of a query; an empty mask allows every pixel."""
        with torch.no_grad():
            allowed = self._mask_embedding(self.norm(x)) @ mask_features >= 0
            return allowed | ~allowed.any(dim=-1, keepdim=True)

    def _output(self, x: Tensor, mask_features: Tensor) -> QueryOutput:
        """Read classes and masks from (N, Q, C) queries."""
        x = self.norm(x)
        masks = self._mask_embedding(x) @ mask_features.flatten(2)  # (N, Q, H * W)
        return QueryOutput(self.classifier(x), masks.unflatten(2, mask_features.shape[2:]))

    def _mask_embedding(self, x: Tensor) -> Tensor:
        """Map (N, Q, C) normalized queries to the weights of their masks."""
        return self.mask_fc3(F.relu(self.mask_fc2(F.relu(self.mask_fc1(x)))))


def semantic_scores(output: QueryOutput) -> Tensor:
    """Return (N, K, H, W): for each class, the sum over queries of its probability times the mask, 0 and up."""
    classes = output.class_logits.softmax(dim=-1)[..., :-1]  # (N, Q, K)
    masks = output.mask_logits.sigmoid()
    return (classes.transpose(1, 2) @ masks.flatten(2)).unflatten(2, masks.shape[2:])
