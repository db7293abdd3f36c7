"""Losses of DINO: queries are matched with objects, denoising queries know theirs.

Shape legend: N images, Q queries, K classes, G objects of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from internimage import parallel
from internimage.detection.config import DINOConfig, SetLossConfig
from internimage.detection.dino.denoising import Denoising, relative_boxes
from internimage.ops.assignment import match_least_cost
from internimage.ops.boxes import pairwise_overlaps, to_corners
from internimage.ops.losses import focal_loss, giou_loss
from internimage.types import DetectionTargets

ALPHA, GAMMA = 0.25, 2.0
COST_EPS = 1e-12

# For each image: the matched queries and the objects they belong to.
Pairs = list[tuple[Tensor, Tensor]]


class Predictions(NamedTuple):
    """Classes and boxes of the queries behind one decoder layer."""

    logits: Tensor  # (N, Q, K)
    boxes: Tensor  # (N, Q, 4) center and size, 0..1 of the image


def set_losses(
    chosen: Predictions,
    layers: Sequence[Predictions],
    denoising: Denoising | None,
    targets: Sequence[DetectionTargets],
    valid_hw: Tensor,
    config: DINOConfig,
) -> dict[str, Tensor]:
    """Return "loss_cls", "loss_bbox" and "loss_iou" of a batch, `valid_hw` (N, 2) being sizes before padding.

    With "interm_" in front they are those of the cells that the encoder has chosen, with "d0." and so on of all decoder
    layers but the last, with "dn_" of the denoising queries, which come first in `layers`.
    """
    true_boxes = [relative_boxes(target, hw) for target, hw in zip(targets, valid_hw, strict=True)]
    labels = [target.labels for target in targets]
    costs = config.set_loss
    factors = {"cls": costs.class_weight, "bbox": costs.box_weight, "iou": costs.iou_weight}

    def weighted(predictions: Predictions, pairs: Pairs, prefix: str) -> dict[str, Tensor]:
        sums = _summed_losses(predictions, pairs, true_boxes, labels, valid_hw)
        divisor = parallel.divisor(sum(len(queries) for queries, _ in pairs), predictions.logits.float())
        return {f"{prefix}loss_{name}": factors[name] * sums[name] / divisor for name in factors}

    losses = weighted(chosen, match(chosen, true_boxes, labels, costs), "interm_")
    number = 0 if denoising is None else denoising.number
    for i, layer in enumerate(layers):
        prefix = "" if i == len(layers) - 1 else f"d{i}."
        noisy, matched = (Predictions(*(x[:, part] for x in layer)) for part in (slice(number), slice(number, None)))
        losses |= weighted(matched, match(matched, true_boxes, labels, costs), prefix)
        if denoising is not None:
            losses |= weighted(noisy, _own_pairs(denoising, labels), f"{prefix}dn_")
    return losses


@torch.no_grad()
def match(
    predictions: Predictions, true_boxes: Sequence[Tensor], labels: Sequence[Tensor], weights: SetLossConfig
) -> Pairs:
    """Pair the queries of each image with its objects at the lowest total cost.

    `true_boxes` are (G, 4) of each image, center and size in 0..1, `labels` (G,) their classes.
    """
    pairs: Pairs = []
    for logits, boxes, own, classes in zip(predictions.logits, predictions.boxes, true_boxes, labels, strict=True):
        cost = weights.class_cost * class_cost(logits.float(), classes)
        cost = cost + weights.box_cost * torch.cdist(boxes.float(), own, p=1)
        cost = cost - weights.iou_cost * pairwise_overlaps(to_corners(boxes.float()), to_corners(own), "giou")
        pairs.append(match_least_cost(cost))
    return pairs


def class_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the (Q, G) focal cost of giving a query the class of an object."""
    probability = logits.sigmoid()[:, labels]
    positive = -(probability + COST_EPS).log() * ALPHA * (1 - probability) ** GAMMA
    negative = -(1 - probability + COST_EPS).log() * (1 - ALPHA) * probability**GAMMA
    return positive - negative


def _own_pairs(denoising: Denoising, labels: Sequence[Tensor]) -> Pairs:
    """Pair the slightly moved objects with what they were; the others are background."""
    size = denoising.number // denoising.groups
    pairs: Pairs = []
    for own in labels:
        index = torch.arange(len(own), device=own.device)
        starts = size * torch.arange(denoising.groups, device=own.device)
        pairs.append(((starts[:, None] + index).flatten(), index.repeat(denoising.groups)))
    return pairs


def _summed_losses(
    predictions: Predictions, pairs: Pairs, true_boxes: Sequence[Tensor], labels: Sequence[Tensor], valid_hw: Tensor
) -> dict[str, Tensor]:
    """Return the three losses of one set of queries, summed up."""
    logits, boxes = predictions.logits.float(), predictions.boxes.float()
    wanted = torch.full(logits.shape[:2], logits.shape[2], dtype=torch.int64, device=logits.device)
    for row, (queries, objects), own in zip(wanted, pairs, labels, strict=True):
        row[queries] = own[objects]
    picked = torch.cat([own[queries] for own, (queries, _) in zip(boxes, pairs, strict=True)])
    target = torch.cat([own[objects] for own, (_, objects) in zip(true_boxes, pairs, strict=True)])
    counts = torch.tensor([len(queries) for queries, _ in pairs], device=boxes.device)
    sides = valid_hw.flip(1).repeat(1, 2).repeat_interleave(counts, dim=0)  # (pairs, 4), so that overlaps are in pixels
    return {
        "cls": focal_loss(logits, wanted, alpha=ALPHA, gamma=GAMMA).sum(),
        "bbox": (picked - target).abs().sum(),
        "iou": giou_loss(to_corners(picked) * sides, to_corners(target) * sides).sum(),
    }
