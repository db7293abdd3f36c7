"""What happens inside of regions: features, classes and boxes, masks.

Shape legend: R regions, C channels, S side of a region's map, K classes of objects. Regions are (R, 5): number of the
image, then corners in pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.detection.config import BoxStageConfig, MaskHeadConfig
from internimage.layers.conv_norm import ConvNorm
from internimage.ops.boxes import decode_deltas
from internimage.ops.fused.rules import may_divide
from internimage.ops.regions import align_regions, average_regions, can_average


def region_levels(rois: Tensor, num_levels: int, finest_scale: int) -> Tensor:
    """Return the (R,) int64 level that each region is read from, by its size.

    Source: feature pyramid networks, equation 1, https://arxiv.org/abs/1612.03144.
    """
    scale = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
    return (scale / finest_scale + 1e-6).log2().floor().clamp(0, num_levels - 1).long()


def region_features(
    maps: Sequence[Tensor], rois: Tensor, side: int, *, strides: Sequence[int], finest_scale: int, backend: str = "auto"
) -> Tensor:
    """Cut (R, 5) regions out of maps (N, C, H, W), fine to coarse: (R, C, S, S) averages of bilinear samples.

    Regions of up to twice `finest_scale` pixels are read from the first level; `strides` are the pixels for a cell.
    """
    levels = region_levels(rois, len(maps), finest_scale)
    is_compiled = can_average(maps[0], backend=backend)
    features = maps[0].new_zeros(rois.shape[0], side, side, maps[0].shape[1]).permute(0, 3, 1, 2)
    for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        own = (levels == level).nonzero().flatten()
        if is_compiled:
            features[own] = average_regions(x, rois[own].float(), side, 1 / stride)
        else:
            features = features.index_copy(0, own, align_regions(x, rois[own], side, 1 / stride))
    return features


def in_parts(function: Callable[..., tuple[Tensor, ...]], number: int, *rows: Tensor) -> tuple[Tensor, ...]:
    """Return what `function` makes of `rows`, tensors of equal length.

    In inference on a CPU it sees at most `number` of them at a time, so that what it needs in between stays small.
    """
    if not may_divide(rows[0]) or len(rows[0]) <= number:
        return function(*rows)
    parts = [function(*part) for part in zip(*(values.split(number) for values in rows), strict=True)]
    return tuple(torch.cat(outputs) for outputs in zip(*parts, strict=True))


class BoxHead(nn.Module):
    """Classes and boxes of (C, S, S) regions: convolutions, linear layers, one linear layer for each output."""

    def __init__(self, in_channels: int, roi_size: int, num_classes: int, config: BoxStageConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        widths = [in_channels] + [config.conv_channels] * config.num_convs
        convs = [ConvNorm(i, o, 3) for i, o in itertools.pairwise(widths)]
        sizes = [widths[-1] * roi_size**2] + [config.fc_channels] * config.num_fcs
        fcs = [nn.Linear(i, o) for i, o in itertools.pairwise(sizes)]
        self.convs, self.fcs = nn.ModuleList(convs), nn.ModuleList(fcs)
        self.classifier = nn.Linear(sizes[-1], num_classes + 1)
        self.regressor = nn.Linear(sizes[-1], 4 if config.class_agnostic else 4 * num_classes)
        for conv in convs:
            nn.init.kaiming_normal_(conv.conv.weight, mode="fan_out", nonlinearity="relu")
        for layer in fcs:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer, std in ((self.classifier, 0.01), (self.regressor, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map (R, C, S, S) to logits (R, K + 1), background last, and regression values (R, 4) or (R, 4 * K)."""
        x = features
        for conv in self.convs:
            x = conv(x)
        x = x.flatten(1)
        for layer in self.fcs:
            x = F.relu(layer(x), inplace=True)
        return self.classifier(x), self.regressor(x)

    def of_class(self, deltas: Tensor, labels: Tensor) -> Tensor:
        """Pick the (R, 4) regression values of one class for each region."""
        if self.config.class_agnostic:
            return deltas
        return deltas.unflatten(1, (self.num_classes, 4))[torch.arange(labels.shape[0], device=labels.device), labels]

    def move(self, rois: Tensor, labels: Tensor, deltas: Tensor, valid_hw: Tensor) -> Tensor:
        """Return (R, 4): each region moved by the regression of one class, clipped to its image (`valid_hw`)."""
        clip_hw = valid_hw[rois[:, 0].long()]
        return decode_deltas(rois[:, 1:], self.of_class(deltas, labels), self.config.stds, clip_hw=clip_hw)

    def refine(self, rois: Tensor, logits: Tensor, deltas: Tensor, valid_hw: Tensor) -> Tensor:
        """Move each region by the regression of its best class of objects, for the next stage."""
        boxes = self.move(rois, logits[:, :-1].argmax(dim=1), deltas.float(), valid_hw)
        return torch.cat([rois[:, :1], boxes], dim=1)

    def decode(self, rois: Tensor, deltas: Tensor, valid_hw: Tensor) -> Tensor:
        """Return the (R, K, 4) boxes of every class, (R, 1, 4) when regression is the same for all."""
        values = deltas.float().unflatten(1, (-1, 4))
        clip_hw = valid_hw[rois[:, 0].long()][:, None]
        return decode_deltas(rois[:, None, 1:], values, self.config.stds, clip_hw=clip_hw)


class MaskHead(nn.Module):
    """Masks of (C, S, S) regions: convolutions, doubling of the side, one map for each class."""

    def __init__(self, in_channels: int, num_classes: int, config: MaskHeadConfig) -> None:
        super().__init__()
        widths = [in_channels] + [config.channels] * config.num_convs
        convs = [ConvNorm(i, o, 3, norm="none", bias=True) for i, o in itertools.pairwise(widths)]
        self.convs = nn.ModuleList(convs)
        self.upsample = nn.ConvTranspose2d(widths[-1], config.channels, 2, stride=2)
        self.logits = nn.Conv2d(config.channels, num_classes, 1)
        for layer in (*(conv.conv for conv in convs), self.upsample, self.logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map (R, C, S, S) to mask logits (R, K, 2 * S, 2 * S)."""
        return self.logits(self.features(features))

    def features(self, features: Tensor) -> Tensor:
        """Map (R, C, S, S) to the (R, channels, 2 * S, 2 * S) maps in front of the last layer."""
        for conv in self.convs:
            features = conv(features)
        return F.relu(self.upsample(features), inplace=True)

    def of_class(self, features: Tensor, labels: Tensor) -> Tensor:
        """Map (R, C, S, S) to the (R, 2 * S, 2 * S) logits of one class for each region, and no others."""
        x = self.features(features)
        weight = self.logits.weight[labels, :, 0, 0]  # (R, channels)
        assert self.logits.bias is not None
        return torch.einsum("rchw,rc->rhw", x, weight) + self.logits.bias[labels, None, None]
