"""Losses that several tasks share; all sum up, the caller divides.

Shape legend: ... any leading sizes, R boxes, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.ops.boxes import aligned_overlaps


def focal_loss(logits: Tensor, labels: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the elementwise sigmoid focal loss.

    Args:
        logits: (..., K).
        labels: (...) int64, K for the background.
        alpha: weight of the class against its absence, 0..1.
        gamma: how much easy examples are weakened.

    Returns:
        (..., K) losses.

    Source: RetinaNet, https://arxiv.org/abs/1708.02002.
    """
    targets = F.one_hot(labels, logits.shape[-1] + 1)[..., :-1].to(logits.dtype)
    probability = logits.sigmoid()
    miss = (1 - probability) * targets + probability * (1 - targets)
    weight = (alpha * targets + (1 - alpha) * (1 - targets)) * miss.pow(gamma)
    return weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return the (R,) generalised-IoU losses of (R, 4) corners, 0..2."""
    return 1 - aligned_overlaps(boxes, targets, "giou")


def smooth_l1_loss(values: Tensor, targets: Tensor, *, beta: float = 1.0) -> Tensor:
    """Return the elementwise loss: a parabola up to a difference of `beta`, then a line; all line for `beta` 0."""
    difference = (values - targets).abs()
    if beta <= 0:
        return difference
    return torch.where(difference < beta, 0.5 * difference**2 / beta, difference - 0.5 * beta)
