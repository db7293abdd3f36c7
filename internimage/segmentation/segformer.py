"""SegFormer head: one 1x1 convolution for each level, all levels fused by another.

Shape legend: N images, C_i H_i W_i map of level i, C channels of the head, K classes. Maps are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from internimage.layers.conv_norm import ConvNorm
from internimage.segmentation.config import SegFormerConfig
from internimage.segmentation.upernet import pixel_classifier, resize_map
from internimage.types import Features


class PointFusion(ConvNorm):
    """The 1x1 convolution of maps that are resized to the first of them and joined along their channels.

    Both steps are linear and the weights of resizing add up to one, so that every map goes through its part of the
    convolution at its own size: a third of the products, and no joined map.
    """

    def forward(self, maps: Sequence[Tensor]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  # of several maps
        """Map (N, C_i, H_i, W_i) maps to (N, C, H_0, W_0)."""
        weights = self.conv.weight.split([x.shape[1] for x in maps], dim=1)
        total = F.conv2d(maps[0], weights[0])
        for x, weight in zip(maps[1:], weights[1:], strict=True):
            total = total + resize_map(F.conv2d(x, weight), total.shape[2:])
        return self.finish(total)


class SegFormerHead(nn.Module):
    """Maps of four levels in, class logits at the finest level out.

    Source: SegFormer, section 3.2, arXiv 2105.15203, with the norms of the InternImage release.
    """

    def __init__(self, config: SegFormerConfig, in_channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.laterals = nn.ModuleList(ConvNorm(channels, config.channels) for channels in in_channels)
        self.fusion = PointFusion(len(in_channels) * config.channels, config.channels)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = pixel_classifier(config.channels, num_classes)

    def forward(self, features: Features) -> Tensor:
        """Map features to (N, K, H_0, W_0) logits."""
        maps = [lateral(x) for lateral, x in zip(self.laterals, features.maps, strict=True)]
        return self.classifier(self.dropout(self.fusion(maps)))
