"""The three metrics of CrowdHuman: average precision, miss rate over false positives, Jaccard index.

Shape legend: D found boxes, G true boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from internimage.data.objects.annotation import ImageAnnotation
from internimage.evaluation.matching import overlaps
from internimage.evaluation.predictions import FoundObjects
from internimage.moved import renamed_keywords
from internimage.ops.assignment import match_least_cost

# False positives of an image at which the miss rate is read: nine levels from 10^-2, or 10^-4, to 1.
MISS_LEVELS = {
    2: (0.0100, 0.0178, 0.0316, 0.0562, 0.1000, 0.1778, 0.3162, 0.5623, 1.000),
    4: (0.0001, 0.0003, 0.00100, 0.0032, 0.0100, 0.0316, 0.1000, 0.3162, 1.000),
}
SCORE_LEVELS = tuple(0.1 * i for i in range(10))


@dataclass(frozen=True)
class CrowdMetrics:
    """Metrics of a detector of people.

    Args:
        precision: average precision at an overlap of 0.5, 0..1, higher is better; None without people.
        miss_rate: geometric mean of the miss rates (MR^-2), 0..1, lower is better; None without people.
        jaccard: best mean Jaccard index (JI) over ten score levels, 0..1, higher is better; None where neither a person
            nor a prediction counts.
    """

    precision: float | None
    miss_rate: float | None
    jaccard: float | None


@renamed_keywords(truth="targets")
def crowd_metrics(
    targets: Sequence[ImageAnnotation], found: Sequence[FoundObjects], *, iou: float = 0.5, decades: int = 2
) -> CrowdMetrics:
    """Return the metrics of one class of objects.

    Ignored regions are `is_special`: predictions that lie in one (by fraction of their own area) count neither as right
    nor as wrong. All boxes are cut at the border of their image.

    Args:
        targets: the ground truth of each image.
        found: what was found in each of them.
        iou: overlap from which a prediction is right, 0..1.
        decades: 2 for MR^-2, 4 for MR^-4.

    Raises:
        ValueError: `decades` is neither 2 nor 4.

    Source: CrowdHuman, section 3.3, https://arxiv.org/abs/1805.00123; the Jaccard index from
        https://arxiv.org/abs/2003.09163, section 5.1.
    """
    if decades not in MISS_LEVELS:
        raise ValueError(f"decades must be 2 or 4, given {decades}")
    found = [replace(own, boxes_xyxy=_cut(own.boxes_xyxy, target)) for own, target in zip(found, targets, strict=True)]
    boxes = [_cut(target.boxes_xyxy, target) for target in targets]
    people = sum(int((~target.is_special).sum()) for target in targets)
    outcomes = [
        _outcomes(own, cut, target.is_special, iou)
        for own, cut, target in zip(found, boxes, targets, strict=True)
        if len(own)
    ]
    scores = np.concatenate([score for score, _ in outcomes] or [np.zeros(0)])
    is_right = np.concatenate([right for _, right in outcomes] or [np.zeros(0, dtype=bool)])
    is_right = is_right[np.argsort(-scores, kind="stable")]
    right, wrong = is_right.cumsum(), (~is_right).cumsum()
    recall = right / max(people, 1)
    precision = right / np.maximum(right + wrong, 1)
    area = float(((precision[1:] + precision[:-1]) / 2 * np.diff(recall)).sum())
    return CrowdMetrics(
        area if people else None,
        _miss_rate(1.0 - recall, wrong / max(len(targets), 1), decades) if people else None,
        _best_jaccard(targets, boxes, found, iou),
    )


def _cut(boxes: np.ndarray, target: ImageAnnotation) -> np.ndarray:
    """Cut boxes at the border of an image."""
    height, width = target.size_hw
    low = np.clip(boxes[:, :2], 0, [width - 1, height - 1])
    return np.concatenate([low, np.clip(boxes[:, 2:], 0, [width, height])], axis=1)


def _outcomes(
    found: FoundObjects, targets: np.ndarray, is_ignored: np.ndarray, iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and rightness of the predictions that count: each takes the free person that it overlaps most."""
    order = np.argsort(-found.scores, kind="stable")
    boxes = found.boxes_xyxy[order]
    shared = overlaps(boxes, targets[~is_ignored])
    hidden = (overlaps(boxes, targets[is_ignored], "iof") > iou).any(axis=1)
    is_right = np.zeros(len(boxes), dtype=bool)
    is_free = np.ones(shared.shape[1], dtype=bool)
    for i in np.flatnonzero((shared > iou).any(axis=1)):
        row = np.where(is_free, shared[i], -1.0)
        best = int(row.argmax())
        if row[best] > iou:
            is_right[i], is_free[best] = True, False
    counts = is_right | ~hidden
    return found.scores[order][counts], is_right[counts]


def _miss_rate(missed: np.ndarray, wrong_per_image: np.ndarray, decades: int) -> float:
    """Geometric mean of the miss rates at the levels; one that is never reached has the rate of all predictions."""
    if not len(missed):
        return 1.0
    first = np.searchsorted(wrong_per_image, MISS_LEVELS[decades])
    rates = missed[first.clip(max=len(missed) - 1)]
    return float(np.exp(np.log(np.maximum(rates, 1e-300)).mean()))


def _best_jaccard(
    targets: Sequence[ImageAnnotation], boxes: Sequence[np.ndarray], found: Sequence[FoundObjects], iou: float
) -> float | None:
    """Best mean over the score levels; at each level, of the images in which a person or a prediction counts."""
    totals, counted = np.zeros(len(SCORE_LEVELS)), np.zeros(len(SCORE_LEVELS), dtype=np.int64)
    for target, cut, own in zip(targets, boxes, found, strict=True):
        people, ignored = cut[~target.is_special], cut[target.is_special]
        shared = overlaps(own.boxes_xyxy, people)
        for i, level in enumerate(SCORE_LEVELS):
            keep = own.scores > level
            index = _jaccard(own.boxes_xyxy[keep], people, shared[keep], ignored, iou)
            if index is not None:
                totals[i] += index
                counted[i] += 1
    return float((totals / counted.clip(min=1)).max()) if counted.any() else None


def _jaccard(
    boxes: np.ndarray, people: np.ndarray, shared: np.ndarray, ignored: np.ndarray, iou: float
) -> float | None:
    """Pairs over predictions and people together, in the pairing with the most pairs; None where neither counts."""
    rows, columns = _pairs(shared, iou)
    pairs = len(rows)
    others = np.delete(boxes, rows, axis=0), np.delete(people, columns, axis=0)
    hidden = [int((overlaps(rest, ignored, "iof") > iou).any(axis=1).sum()) for rest in others]
    number = len(boxes) - hidden[0] + len(people) - hidden[1] - pairs
    return pairs / (number + 1e-6) if number else None


def _pairs(shared: np.ndarray, iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair predictions with people, as many as possible; among such pairings, that with the largest overlaps."""
    near = np.where(shared >= iou, shared, 0.0)
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    near = near[np.ix_(rows, columns)]
    # One more pair outweighs any sum of overlaps.
    gain = np.where(near > 0, near + min(near.shape, default=0) + 1.0, 0.0)
    first, second = (index.numpy() for index in match_least_cost(torch.from_numpy(-gain)))
    is_pair = near[first, second] > 0
    return rows[first[is_pair]], columns[second[is_pair]]
