"""Necks of detectors: maps of a backbone in, maps of equal width at more strides out.

Shape legend: N images, C channels, H W map, L levels. Maps are (N, C, H, W), channels-last in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from internimage.layers.conv_norm import ConvNorm, NormKind


class FeaturePyramid(nn.Module):
    """Feature pyramid network: every map gets the sum of all coarser ones; further levels are subsampled.

    Args:
        in_channels: channels of the maps of the backbone, fine to coarse.
        channels: C of every output.
        num_levels: L outputs, at least as many as inputs.
        norm: norm behind every convolution: "none" (InternImage) or "layer" (FlashInternImage).

    Source: feature pyramid networks, https://arxiv.org/abs/1612.03144.

    Example:
        >>> import torch
        >>> maps = [torch.rand(1, 8, 16, 16), torch.rand(1, 16, 8, 8)]
        >>> [tuple(m.shape[1:]) for m in FeaturePyramid((8, 16), 4, num_levels=3)(maps)]
        [(4, 16, 16), (4, 8, 8), (4, 4, 4)]
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int = 256, *, num_levels: int = 5, norm: NormKind = "none"
    ) -> None:
        super().__init__()
        if num_levels < len(in_channels):
            raise ValueError(f"num_levels must be at least {len(in_channels)}, one for each map, given {num_levels}")
        self.num_levels = num_levels
        self.lateral_convs = nn.ModuleList(
            ConvNorm(width, channels, 1, norm=norm, relu=False, bias=norm == "none") for width in in_channels
        )
        self.output_convs = nn.ModuleList(
            ConvNorm(channels, channels, 3, norm=norm, relu=False, bias=norm == "none") for _ in in_channels
        )
        init_convs(self)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map the backbone's maps to L maps with C channels each, fine to coarse."""
        sums = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for i in range(len(sums) - 1, 0, -1):
            sums[i - 1] += F.interpolate(sums[i], size=sums[i - 1].shape[-2:], mode="nearest")
        sums.reverse()
        outputs = [conv(sums.pop()) for conv in self.output_convs]  # each sum is freed before the next output
        while len(outputs) < self.num_levels:
            outputs.append(F.max_pool2d(outputs[-1], 1, stride=2))
        return outputs


class ChannelMapper(nn.Module):
    """Bring every map to the same width; further levels come from strided convolutions of the last map.

    Args:
        in_channels: channels of the maps of the backbone, fine to coarse.
        channels: C of every output; a multiple of 32, for the group norms.
        num_levels: L outputs, at least as many as inputs.

    Source: Deformable DETR, section 4.2, https://arxiv.org/abs/2010.04159.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256, *, num_levels: int = 4) -> None:
        super().__init__()
        extra = num_levels - len(in_channels)
        if extra < 0:
            raise ValueError(f"num_levels must be at least {len(in_channels)}, one for each map, given {num_levels}")
        widths = [in_channels[-1]] + [channels] * extra
        self.convs = nn.ModuleList(ConvNorm(width, channels, 1, norm="group", relu=False) for width in in_channels)
        self.extra_convs = nn.ModuleList(
            ConvNorm(width, channels, 3, stride=2, norm="group", relu=False) for width in widths[:extra]
        )
        init_convs(self)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map the backbone's maps to L maps with C channels each, fine to coarse."""
        outputs = [conv(x) for conv, x in zip(self.convs, maps, strict=True)]
        x = maps[-1]
        for conv in self.extra_convs:
            x = conv(x)
            outputs.append(x)
        return outputs


def init_convs(module: nn.Module) -> None:
    """Give the convolutions of a neck Xavier weights and no bias, the published initialization."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
