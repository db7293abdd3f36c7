"""UperNet: pyramid pooling on the coarsest map, a feature pyramid, one fused map.

Shape legend: N images, C_i H_i W_i map of level i, C channels of the head, K classes. Maps are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.layers.conv_norm import ConvNorm
from internimage.ops.fused.rules import may_divide
from internimage.segmentation.config import UperNetConfig
from internimage.types import Features

AUXILIARY_LEVEL = 2


def resize_map(x: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Resize (N, C, H, W) bilinearly, cell centers on cell centers."""
    # A comparison would tie an exported graph to sizes that happen to be equal in its example.
    if not torch.compiler.is_compiling() and tuple(x.shape[2:]) == tuple(size_hw):
        return x
    return F.interpolate(x, size=tuple(size_hw), mode="bilinear", align_corners=False)


def pixel_classifier(channels: int, num_classes: int) -> nn.Conv2d:
    """Return the 1x1 convolution from (N, C, H, W) to class logits, initialized as published."""
    layer = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Fusion(ConvNorm):
    """The convolution that fuses maps, resized to the first of them and joined along their channels."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  # of several maps
        """Map (N, C_i, H_i, W_i) maps to (N, C, H_0, W_0)."""
        size_hw = maps[0].shape[2:]
        if not may_divide(maps[0]):
            return super().forward(torch.cat([resize_map(x, size_hw) for x in maps], dim=1))
        # A sum over the maps: joined they are the largest tensor of all, and inference does not need it.
        total, padding = None, self.conv.padding
        weights = self.conv.weight.split([x.shape[1] for x in maps], dim=1)
        for x, weight in zip(maps, weights, strict=True):
            part = F.conv2d(resize_map(x, size_hw), weight, padding=padding)
            total = part if total is None else total.add_(part)
        assert total is not None
        return self.finish(total)


class UperNetHead(nn.Module):
    """Maps of four levels in, class logits at the finest level out.

    Source: Unified Perceptual Parsing, section 3, arXiv 1807.10221.
    """

    def __init__(self, config: UperNetConfig, in_channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        self.pooled = nn.ModuleList(ConvNorm(in_channels[-1], width) for _ in config.pool_scales)
        self.bottleneck = ConvNorm(in_channels[-1] + len(config.pool_scales) * width, width, 3)
        self.laterals = nn.ModuleList(ConvNorm(channels, width) for channels in in_channels[:-1])
        self.outputs = nn.ModuleList(ConvNorm(width, width, 3) for _ in in_channels[:-1])
        self.fusion = Fusion(len(in_channels) * width, width, 3)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = pixel_classifier(width, num_classes)
        self.auxiliary: AuxiliaryHead | None = None
        if (channels := config.auxiliary_channels) is not None:
            self.auxiliary = AuxiliaryHead(in_channels[AUXILIARY_LEVEL], channels, num_classes, dropout=config.dropout)

    def forward(self, features: Features) -> Tensor:
        """Map features to (N, K, H_0, W_0) logits."""
        return self.classifier(self.dropout(self.fuse_levels(features)))

    def auxiliary_logits(self, features: Features) -> Tensor | None:
        """Return the (N, K, H_2, W_2) logits of the second classifier, None without one."""
        return None if self.auxiliary is None else self.auxiliary(features.maps[AUXILIARY_LEVEL])

    def fuse_levels(self, features: Features) -> Tensor:
        """Return the (N, C, H_0, W_0) map in front of the classifier."""
        maps = [lateral(x) for lateral, x in zip(self.laterals, features.maps[:-1], strict=True)]
        maps.append(self._pool(features.maps[-1]))
        for i in reversed(range(len(maps) - 1)):
            maps[i] = maps[i] + resize_map(maps[i + 1], maps[i].shape[2:])
        maps.reverse()
        coarsest = maps[0]
        maps = [*(output(maps.pop()) for output in self.outputs), coarsest]  # each sum is freed before the next output
        return self.fusion(maps)

    def _pool(self, x: Tensor) -> Tensor:
        """Join the coarsest map with its averages over grids of several sizes."""
        parts = [x]
        for scale, layer in zip(self.config.pool_scales, self.pooled, strict=True):
            parts.append(resize_map(layer(F.adaptive_avg_pool2d(x, scale)), x.shape[2:]))
        return self.bottleneck(torch.cat(parts, dim=1))


class AuxiliaryHead(nn.Module):
    """One convolution and a classifier, for the second loss of training only."""

    def __init__(self, in_channels: int, channels: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.conv = ConvNorm(in_channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = pixel_classifier(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_i, H, W) to (N, K, H, W) logits."""
        return self.classifier(self.dropout(self.conv(x)))
