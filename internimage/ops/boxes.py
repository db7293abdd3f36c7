"""Boxes: conversions, overlaps, regression targets and suppression.

Shape legend: ... any leading sizes, A and B boxes, R boxes. Boxes are (x1, y1, x2, y2) in pixels, floating point.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import nms

OverlapKind = Literal["iou", "iof", "giou"]
EPS = 1e-6
# Largest change of a side by regression: a box of 16 pixels may grow to 1000 (and shrink as much).
MAX_LOG_RATIO = abs(math.log(16 / 1000))


def to_center_size(boxes: Tensor) -> Tensor:
    """Turn (..., 4) corners into (center x, center y, width, height)."""
    low, high = boxes.split(2, dim=-1)
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def to_corners(boxes: Tensor) -> Tensor:
    """Turn (..., 4) (center x, center y, width, height) into corners."""
    center, size = boxes.split(2, dim=-1)
    return torch.cat([center - 0.5 * size, center + 0.5 * size], dim=-1)


def clip_boxes(boxes: Tensor, size_hw: Tensor) -> Tensor:
    """Clip (..., 4) corners to images.

    Args:
        boxes: (..., 4) corners.
        size_hw: (..., 2) height and width, broadcast against the boxes.
    """
    limit = size_hw.flip(-1).to(boxes.dtype).repeat_interleave(2, dim=-1)[..., [0, 2, 1, 3]]  # (..., w, h, w, h)
    return torch.minimum(boxes.clamp(min=0), limit)


def areas(boxes: Tensor) -> Tensor:
    """Return the areas of (..., 4) corners."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_overlaps(a: Tensor, b: Tensor, kind: OverlapKind = "iou") -> Tensor:
    """Return the (..., A, B) overlaps of every box of `a` (..., A, 4) with every one of `b` (..., B, 4)."""
    return aligned_overlaps(a[..., :, None, :], b[..., None, :, :], kind)


def aligned_overlaps(a: Tensor, b: Tensor, kind: OverlapKind = "iou", *, eps: float = EPS) -> Tensor:
    """Return the overlaps of boxes that broadcast against one another.

    Args:
        a: (..., 4) corners.
        b: (..., 4) corners.
        kind: "iou" intersection over union, "iof" intersection over the area of `a`, "giou" generalised IoU.
        eps: smallest denominator, in square pixels.

    Returns:
        (...) values: 0..1, or -1..1 for "giou".

    Source: generalised IoU, https://arxiv.org/abs/1902.09630.

    Example:
        >>> float(aligned_overlaps(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 0, 3, 2])))
        0.3333333432674408
    """
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    overlap = (high - low).clamp(min=0).prod(dim=-1)
    if kind == "iof":
        return overlap / areas(a).clamp(min=eps)
    union = (areas(a) + areas(b) - overlap).clamp(min=eps)
    iou = overlap / union
    if kind == "iou":
        return iou
    outer = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    hull = outer.clamp(min=0).prod(dim=-1).clamp(min=eps)
    return iou - (hull - union) / hull


def encode_deltas(boxes: Tensor, targets: Tensor, stds: tuple[float, ...]) -> Tensor:
    """Return the (R, 4) regression values that turn `boxes` into `targets`, in units of `stds`.

    Source: R-CNN, appendix C, https://arxiv.org/abs/1311.2524.
    """
    start, end = to_center_size(boxes), to_center_size(targets)
    shift = (end[..., :2] - start[..., :2]) / start[..., 2:]
    growth = (end[..., 2:] / start[..., 2:]).log()
    return torch.cat([shift, growth], dim=-1) / torch.tensor(stds, dtype=boxes.dtype, device=boxes.device)


def decode_deltas(boxes: Tensor, deltas: Tensor, stds: tuple[float, ...], *, clip_hw: Tensor | None = None) -> Tensor:
    """Apply regression values to boxes.

    Args:
        boxes: (..., 4) corners.
        deltas: (..., 4) values that broadcast against the boxes.
        stds: units of the four values.
        clip_hw: (..., 2) size of the image of each box, or None to leave the result as it is.

    Returns:
        (..., 4) corners.
    """
    shift, growth = (deltas * torch.tensor(stds, dtype=deltas.dtype, device=deltas.device)).split(2, dim=-1)
    center, size = to_center_size(boxes).split(2, dim=-1)
    center = center + size * shift
    half = 0.5 * size * growth.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    decoded = torch.cat([center - half, center + half], dim=-1)
    return decoded if clip_hw is None else clip_boxes(decoded, clip_hw)


def nms_in_groups(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes that overlap a better one of the same group.

    The groups are moved apart by more than the largest coordinate, so that one pass serves all; the rounding of the
    moved coordinates is part of the published detectors' results.

    Args:
        boxes: (R, 4) corners, not negative.
        scores: (R,) any order.
        groups: (R,) int64 numbers of the groups, for example class labels.
        iou_threshold: boxes that overlap more than this are suppressed, 0..1.

    Returns:
        Indices of the survivors, best first.
    """
    boxes = boxes.float()
    # The zero is for no boxes at all, which a branch would ask for: their number is not known in an exported graph.
    largest = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max()
    offsets = groups.to(boxes.dtype) * (largest + 1)
    return _suppress(boxes + offsets[:, None], scores.float(), iou_threshold)


def _suppress(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes by torchvision's `nms`; they are not negative, nor are the scores.

    torchvision tells a compiler that at least two boxes survive, which an exported graph would insist on. Two that
    overlap nothing and come last make it true.
    """
    if not torch.compiler.is_compiling():
        return nms(boxes, scores, iou_threshold)
    more = -torch.arange(1, 9, dtype=boxes.dtype, device=boxes.device).flip(0).reshape(2, 4)[:, [0, 0, 1, 1]]
    kept = nms(torch.cat([boxes, more]), torch.cat([scores, scores.new_full((2,), -1.0)]), iou_threshold)
    return kept[: kept.shape[0] - 2]
