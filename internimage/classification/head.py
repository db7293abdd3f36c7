"""Classification heads: from the maps of a backbone to one logit for each class.

Shape legend: N images, H W map, C channels of the first level, K classes. Maps are (N, C, H, W).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.backbones import BackboneConfig
from internimage.layers.attention_pool import AttentionPool
from internimage.layers.conv_norm import BatchNorm
from internimage.layers.deform_conv import NORM_EPS
from internimage.types import Features

HeadKind = Literal["conv", "attention_pool", "attention_pool_metadata"]
HEAD_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
TEMPORAL_SIZE, SPATIAL_SIZE = 4, 3


class ConvHead(nn.Module):
    """1x1 convolution, batch norm and GELU on the last map, global average, linear (T, S, B, L, XL)."""

    exported_step = 1  # of the input's sides in a graph with free sizes, in pixels

    def __init__(self, config: BackboneConfig, num_classes: int, *, scale: float = 1.5) -> None:
        super().__init__()
        hidden = int(config.widths[-1] * scale)
        self.conv = nn.Conv2d(config.widths[-1], hidden, 1, bias=False)
        self.norm = BatchNorm(hidden)
        self.act = nn.GELU()
        self.classifier = nn.Linear(hidden, num_classes)

    def pool(self, features: Features) -> Tensor:
        """Return the (N, hidden) vector in front of the last linear layer."""
        return self.act(self.norm(self.conv(features.maps[-1]))).mean(dim=(2, 3))

    def forward(self, features: Features) -> Tensor:
        """Map features to (N, K) logits."""
        return self.classifier(self.pool(features))


class AttentionPoolHead(nn.Module):
    """Sum of the projected last two maps, attention pooling, norm, linear (H, G)."""

    CHANNELS, HEADS, POOLED = 1024, 16, 768
    exported_step = 32  # the two maps must meet without a surplus, which a graph would have to ask for

    def __init__(self, config: BackboneConfig, num_classes: int) -> None:
        super().__init__()
        self.project_x4 = nn.Conv2d(config.widths[3], 4 * self.CHANNELS, 1)
        self.project_x3 = nn.Conv2d(config.widths[2], self.CHANNELS, 1)
        self.attention_pool = AttentionPool(self.CHANNELS, num_heads=self.HEADS, out_channels=self.POOLED, eps=NORM_EPS)
        self.norm = nn.LayerNorm(self.POOLED, eps=NORM_EPS)
        self.classifier = nn.Linear(self.POOLED, num_classes)

    def pool(self, features: Features) -> Tensor:
        """Return the (N, 768) vector in front of the last linear layer."""
        x3 = self.project_x3(features.maps[-2])
        x4 = F.pixel_shuffle(self.project_x4(features.maps[-1]), 2)
        # An odd stage-3 side makes the shuffled map one row or column larger; the surplus lies outside of the image.
        x = x3 + x4[:, :, : x3.shape[2], : x3.shape[3]]
        return self.norm(self.attention_pool(x.flatten(2).transpose(1, 2)))

    def forward(self, features: Features) -> Tensor:
        """Map features to (N, K) logits."""
        return self.classifier(self.pool(features))


class MetadataResidual(nn.Module):
    """Two linear layers, each followed by ReLU and norm, around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.norm1 = nn.Linear(channels, channels), nn.LayerNorm(channels)
        self.fc2, self.norm2 = nn.Linear(channels, channels), nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C) to (N, C)."""
        return x + self.norm2(F.relu(self.fc2(self.norm1(F.relu(self.fc1(x))))))


class MetadataEncoder(nn.Module):
    """Embed a small vector of side information: linear, ReLU, norm, residual block."""

    def __init__(self, in_features: int, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_features, channels)
        self.norm = nn.LayerNorm(channels)  # with torch's epsilon, unlike the other norms of the model
        self.residual = MetadataResidual(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_features) to (N, C)."""
        return self.residual(self.norm(F.relu(self.fc(x))))


class MetadataHead(nn.Module):
    """Attention-pool head plus logits from the date and the place of an image (iNaturalist).

    Source: InternImage release, iNaturalist-2018 model.
    """

    CHANNELS = 64
    exported_step = AttentionPoolHead.exported_step

    def __init__(self, config: BackboneConfig, num_classes: int) -> None:
        super().__init__()
        self.image = AttentionPoolHead(config, num_classes)
        self.temporal = MetadataEncoder(TEMPORAL_SIZE, self.CHANNELS)
        self.spatial = MetadataEncoder(SPATIAL_SIZE, self.CHANNELS)
        self.norm = nn.LayerNorm(2 * self.CHANNELS, eps=NORM_EPS)
        self.classifier = nn.Linear(2 * self.CHANNELS, num_classes)

    def pool(self, features: Features) -> Tensor:
        """Return the (N, 768) image vector."""
        return self.image.pool(features)

    def forward(self, features: Features, metadata: Tensor) -> Tensor:
        """Map features and (N, 7) metadata, temporal values first, to (N, K) logits."""
        temporal, spatial = metadata.split([TEMPORAL_SIZE, SPATIAL_SIZE], dim=1)
        side = torch.cat([self.temporal(temporal), self.spatial(spatial)], dim=1)  # (N, 128)
        return self.image(features) + self.classifier(self.norm(side))


def build_head(
    kind: HeadKind, config: BackboneConfig, num_classes: int, *, conv_ratio: float = 1.5
) -> ConvHead | AttentionPoolHead | MetadataHead:
    """Return the head named `kind` for a backbone; `conv_ratio` widens the convolution of the conv head.

    Raises:
        ValueError: `kind` is none of `HEAD_KINDS`, or `num_classes` is below 1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, given {num_classes}")
    if head_named(kind) == "conv":
        return ConvHead(config, num_classes, scale=conv_ratio)
    return (AttentionPoolHead if kind == "attention_pool" else MetadataHead)(config, num_classes)


def head_named(name: str) -> HeadKind:
    """Return a kind of head by its name.

    Raises:
        ValueError: there is no such head.
    """
    if name not in HEAD_KINDS:
        raise ValueError(f"head must be one of {', '.join(HEAD_KINDS)}, given {name!r}")
    return name
