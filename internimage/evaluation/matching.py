"""Numpy pieces of the metrics: overlaps, the curve of precision over recall, its area.

Shape legend: D found boxes, G true boxes. Boxes are (x1, y1, x2, y2).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from internimage.ops.boxes import pairwise_overlaps


def overlaps(
    found: np.ndarray, targets: np.ndarray, kind: Literal["iou", "iof"] = "iou", *, extent: float = 0.0
) -> np.ndarray:
    """Return the (D, G) overlaps of boxes, see `internimage.ops.boxes.pairwise_overlaps`.

    "iof" is intersection over the area of the found box. `extent` is added to every width and height: 1 where corners
    name the first and the last pixel, as in VOC.
    """
    a, b = (torch.from_numpy(boxes + np.array([0.0, 0.0, extent, extent])) for boxes in (found, targets))
    return pairwise_overlaps(a, b, kind).numpy()


def first_of_each(groups: np.ndarray) -> np.ndarray:
    """Mark the first entry of each group in (D,) group ids; negative ones belong to none.

    Example:
        >>> first_of_each(np.array([3, -1, 3, 0])).tolist()
        [True, False, False, True]
    """
    is_first = np.zeros(len(groups), dtype=bool)
    _, index = np.unique(groups, return_index=True)
    is_first[index] = True
    return is_first & (groups >= 0)


def curve(scores: np.ndarray, is_right: np.ndarray, num_targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision over the predictions from the best score to the worst."""
    right = is_right[np.argsort(-scores, kind="stable")].astype(np.float64).cumsum()
    return right / max(num_targets, 1), right / np.arange(1, len(right) + 1)


def area_under(recall: np.ndarray, precision: np.ndarray) -> float:
    """Return the area under the curve whose precision is the best one at this recall or a higher one."""
    if not len(recall):
        return 0.0
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * best).sum())


def mean_of_eleven(recall: np.ndarray, precision: np.ndarray) -> float:
    """Return the mean of the best precisions from the recalls 0, 0.1, ..., 1 on."""
    best = [precision[recall >= level].max(initial=0.0) for level in np.arange(0, 1.05, 0.1)]
    return float(np.mean(best))
