"""The region proposal network: where objects may be.

Shape legend: N images, C channels, H W map, A anchors of a cell, K anchors of all cells of a level, P proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.detection.config import ProposalConfig, RPNConfig
from internimage.detection.rcnn.anchors import base_anchors, grid_anchors
from internimage.ops.boxes import decode_deltas, nms_in_groups

STDS = (1.0, 1.0, 1.0, 1.0)


class RPNOutputs(NamedTuple):
    """Raw outputs of every level, fine to coarse: logits (N, A, H, W) and regression values (N, 4 * A, H, W)."""

    logits: list[Tensor]
    deltas: list[Tensor]

    def flat_logits(self) -> list[Tensor]:
        """(N, K) for each level, cell by cell."""
        return [x.permute(0, 2, 3, 1).flatten(1).float() for x in self.logits]

    def flat_deltas(self) -> list[Tensor]:
        """(N, K, 4) for each level, cell by cell."""
        return [x.permute(0, 2, 3, 1).reshape(len(x), -1, 4).float() for x in self.deltas]


class Proposals(NamedTuple):
    """Candidate regions of a batch, best first within each image, images one after the other."""

    boxes: Tensor  # (P, 4)
    scores: Tensor  # (P,)
    image: Tensor  # (P,) int64 number of the image

    def of(self, number: int) -> tuple[Tensor, Tensor]:
        """Boxes and scores of one image."""
        own = self.image == number
        return self.boxes[own], self.scores[own]


class RPN(nn.Module):
    """Region proposal network: one small convolutional head on every level, see `RPNConfig`."""

    def __init__(self, in_channels: int, config: RPNConfig) -> None:
        super().__init__()
        self.config = config
        anchors = len(config.ratios)
        self.conv = nn.Conv2d(in_channels, config.channels, 3, padding=1)
        self.logits = nn.Conv2d(config.channels, anchors, 1)
        self.deltas = nn.Conv2d(config.channels, 4 * anchors, 1)
        for layer in (self.conv, self.logits, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> RPNOutputs:
        """Map (N, C, H, W) levels to logits and regression values."""
        hidden = [F.relu(self.conv(x), inplace=True) for x in maps]
        return RPNOutputs([self.logits(x) for x in hidden], [self.deltas(x) for x in hidden])

    def anchors(self, outputs: RPNOutputs) -> list[Tensor]:
        """Return the (K, 4) anchors of each level."""
        device, config = outputs.logits[0].device, self.config
        return [
            grid_anchors((x.shape[2], x.shape[3]), stride, base_anchors(stride, config.scale, config.ratios).to(device))
            for x, stride in zip(outputs.logits, config.strides, strict=True)
        ]

    def propose(self, outputs: RPNOutputs, valid_hw: Tensor, config: ProposalConfig) -> Proposals:
        """Turn raw outputs into the best regions, at most `config.kept` for each image.

        Regions are clipped to `valid_hw`, (N, 2) sizes before padding; those of NaN outputs are kept, so that they are
        noticed.
        """
        boxes, scores, levels = self._candidates(outputs, valid_hw, config.pre_nms)
        size = boxes[..., 2:] - boxes[..., :2]
        is_large = ~(size <= config.min_size).any(dim=-1)  # true for NaN
        kept: list[Proposals] = []
        for i, large in enumerate(is_large):
            own_boxes, own_scores = boxes[i, large], scores[i, large]
            best = nms_in_groups(own_boxes, own_scores, levels[large], config.nms_iou)[: config.kept]
            kept.append(Proposals(own_boxes[best], own_scores[best], torch.full_like(best, i)))
        return Proposals(*(torch.cat(parts) for parts in zip(*kept, strict=True)))

    def _candidates(self, outputs: RPNOutputs, valid_hw: Tensor, pre_nms: int) -> tuple[Tensor, Tensor, Tensor]:
        """Best anchors of every level: boxes (N, P, 4), scores (N, P), level numbers (P,)."""
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        flat = zip(outputs.flat_logits(), outputs.flat_deltas(), self.anchors(outputs), strict=True)
        for level, (logits, deltas, anchors) in enumerate(flat):
            score = logits.sigmoid()
            number = score.shape[1]
            if isinstance(number, torch.SymInt) or number > pre_nms:  # a comparison would tie a graph to its sizes
                score, best = score.topk(torch.sym_min(number, pre_nms), dim=1)
                deltas = deltas.gather(1, best[..., None].expand(-1, -1, 4))
                anchors = anchors[best]
            boxes = decode_deltas(anchors, deltas, STDS, clip_hw=valid_hw[:, None])
            found.append((boxes, score, torch.full((score.shape[1],), level, device=score.device)))
        boxes, scores, levels = zip(*found, strict=True)
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)
