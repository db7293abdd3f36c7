"""Merging repeated predictions of the same object: suppression, soft suppression, weighted fusion.

Shape legend: R boxes, S survivors or fused boxes. Boxes are (x1, y1, x2, y2) in pixels; predictions of different groups
(classes) never meet.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torchvision.ops import nms

from internimage.evaluation.matching import overlaps
from internimage.options import Merging

GAUSSIAN_WIDTH = 0.5


class Merged(NamedTuple):
    """What is left, best first."""

    sources: np.ndarray  # (S,) int64 the prediction that each survivor is, or the best one of those it was fused from
    boxes: np.ndarray  # (S, 4)
    scores: np.ndarray  # (S,)


def merge_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    *,
    method: Merging = "soft_nms",
    iou: float = 0.5,
    num_views: int = 1,
    min_score: float = 1e-3,
) -> Merged:
    """Merge predictions that show the same object.

    Args:
        boxes: (R, 4) corners.
        scores: (R,) 0..1.
        groups: (R,) int64 ids; predictions of one group are merged with one another.
        method: "nms" drops predictions that overlap a better one; "soft_nms" lowers their scores instead, the more they
            overlap (Gaussian decay); "fusion" replaces predictions that overlap by their mean, weighted by their
            scores, and lowers the score of what was seen in few views.
        iou: overlap from which "nms" and "fusion" see the same object, 0..1; "soft_nms" needs none.
        num_views: how many views of the image the predictions come from, for "fusion".
        min_score: what falls below is dropped.

    Raises:
        ValueError: the method is unknown, or a number is out of range.

    Source: soft-NMS, https://arxiv.org/abs/1704.04503; weighted boxes fusion, https://arxiv.org/abs/1910.13302.
    """
    methods = {"nms": _suppress, "soft_nms": _suppress_softly, "fusion": _fuse}
    if method not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}, given {method!r}")
    if not 0 < iou <= 1 or num_views < 1:
        raise ValueError(f"iou must lie in 0..1 and num_views be at least 1, given {iou} and {num_views}")
    parts = [Merged(np.zeros(0, dtype=np.int64), np.zeros((0, 4)), np.zeros(0))]
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        members = members[np.argsort(-scores[members], kind="stable")]
        own = methods[method](boxes[members].astype(np.float64), scores[members].astype(np.float64), iou, num_views)
        parts.append(own._replace(sources=members[own.sources]))
    index, merged, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(-values, kind="stable")
    order = order[values[order] >= min_score]
    return Merged(index[order], merged[order], values[order])


def _suppress(boxes: np.ndarray, scores: np.ndarray, iou: float, _: int) -> Merged:
    """Drop what overlaps a better prediction."""
    index = nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou).numpy()
    return Merged(index, boxes[index], scores[index])


def _suppress_softly(boxes: np.ndarray, scores: np.ndarray, _: float, __: int) -> Merged:
    """Take the best prediction again and again; each lowers the scores of those it overlaps."""
    decay = np.exp(-(overlaps(boxes, boxes) ** 2) / GAUSSIAN_WIDTH)
    left, final = scores.copy(), np.zeros(len(scores))
    for _step in range(len(boxes)):
        best = int(left.argmax())
        final[best] = left[best]
        left *= decay[best]
        left[final > 0] = -1.0
        if left.max() <= 0:
            break
    index = np.flatnonzero(final > 0)
    return Merged(index, boxes[index], final[index])


def _fuse(boxes: np.ndarray, scores: np.ndarray, iou: float, num_views: int) -> Merged:
    """Add each prediction, best first, to the fused box that it overlaps most."""
    weighted, weights = np.zeros((len(boxes), 4)), np.zeros(len(boxes))
    first, counts = np.zeros(len(boxes), dtype=np.int64), np.zeros(len(boxes), dtype=np.int64)
    number = 0
    for i, (box, score) in enumerate(zip(boxes, scores, strict=True)):
        fused = weighted[:number] / np.maximum(weights[:number, None], 1e-12)
        shared = overlaps(box[None], fused)[0]
        target = int(shared.argmax()) if number else 0
        if not number or shared[target] <= iou:
            target, number = number, number + 1
            first[target] = i
        weighted[target] += score * box
        weights[target] += score
        counts[target] += 1
    weighted, weights, counts = weighted[:number], weights[:number], counts[:number]
    boxes = weighted / np.maximum(weights[:, None], 1e-12)
    # The mean score, lowered where fewer predictions than views agree.
    return Merged(first[:number], boxes, weights / np.maximum(counts, num_views))
