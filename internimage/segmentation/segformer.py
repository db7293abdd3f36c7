"""SegFormer head: one 1x1 convolution for each level, all levels fused by another.

Shape legend: N images, C_i H_i W_i map of level i, C channels of the head, K classes. Maps are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from internimage.layers.conv_norm import ConvNorm
from internimage.segmentation.upernet import pixel_classifier, resize_map
from internimage.types import Features


@dataclass(frozen=True)
class SegFormerConfig:
    """Settings of a SegFormer head.

    Args:
        kind: tells the head in files.
        channels: width C.
        dropout: share of channels that training drops in front of the classifier, 0..1.
        count_ignored_pixels: divide the loss by all pixels, not only by those with a label, as the published models
            were trained.
    """

    kind: Literal["segformer"] = "segformer"
    channels: int = 256
    dropout: float = 0.1
    count_ignored_pixels: bool = False


class SegFormerHead(nn.Module):
    """Maps of four levels in, class logits at the finest level out.

    Args:
        config: settings.
        in_channels: channels of the four maps.
        num_classes: K.

    Source: SegFormer, section 3.2, arXiv 2105.15203, with the norms of the InternImage release.
    """

    def __init__(self, config: SegFormerConfig, in_channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.laterals = nn.ModuleList(ConvNorm(channels, config.channels) for channels in in_channels)
        self.fusion = ConvNorm(len(in_channels) * config.channels, config.channels)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = pixel_classifier(config.channels, num_classes)

    def forward(self, features: Features) -> Tensor:
        """Map features to (N, K, H_0, W_0) logits."""
        size_hw = features.maps[0].shape[2:]
        maps = [resize_map(lateral(x), size_hw) for lateral, x in zip(self.laterals, features.maps, strict=True)]
        return self.classifier(self.dropout(self.fusion(torch.cat(maps, dim=1))))
