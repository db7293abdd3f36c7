"""Which box belongs to which object: by overlap, and one to one at least total cost.

Shape legend: B boxes, G objects, R rows (queries), T columns (targets).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from internimage.errors import MissingExtra
from internimage.ops.boxes import pairwise_overlaps

BACKGROUND, UNUSED = -1, -2


def assign_by_overlap(
    boxes: Tensor,
    true_boxes: Tensor,
    *,
    positive_iou: float,
    negative_iou: float,
    min_positive_iou: float,
    match_low_quality: bool,
    ignored: Tensor | None = None,
    ignore_iof: float = 0.5,
) -> Tensor:
    """Give each box an object, the background, or neither.

    Args:
        boxes: (B, 4) corners.
        true_boxes: (G, 4) corners of the objects.
        positive_iou: from this overlap on a box belongs to its best object, 0..1.
        negative_iou: below this overlap it belongs to the background, 0..1.
        min_positive_iou: lowest overlap of an object's best boxes for `match_low_quality`, 0..1.
        match_low_quality: give each object its best boxes even below `positive_iou`; where several objects have one
            best box, the last one has it.
        ignored: (I, 4) corners of regions to be left out, or None.
        ignore_iof: boxes with a larger fraction of their area in an ignored region are left out, 0..1.

    Returns:
        (B,) int64: index of the object, `BACKGROUND` or `UNUSED`.

    Source: Faster R-CNN, section 3.1.2, https://arxiv.org/abs/1506.01497.

    Example:
        >>> true_boxes = torch.tensor([[0.0, 0, 4, 4]])
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [8.0, 8, 9, 9]])
        >>> limits = dict(positive_iou=0.5, negative_iou=0.5, min_positive_iou=0.5, match_low_quality=False)
        >>> assign_by_overlap(boxes, true_boxes, **limits).tolist()
        [0, -1]
    """
    assigned = torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
    if not (len(true_boxes) and len(boxes)):
        return assigned
    overlaps = pairwise_overlaps(true_boxes, boxes)  # (G, B)
    if ignored is not None and len(ignored):
        fraction = pairwise_overlaps(boxes, ignored, "iof").amax(dim=1)
        overlaps[:, fraction > ignore_iof] = -1
    best, index = overlaps.max(dim=0)
    is_background = (best >= 0) & (best < negative_iou)
    assigned[~is_background] = UNUSED
    assigned = torch.where(best >= positive_iou, index, assigned)
    if match_low_quality:
        best_of_object = overlaps.amax(dim=1, keepdim=True)
        is_best = (overlaps == best_of_object) & (best_of_object >= min_positive_iou)
        indices = torch.arange(len(true_boxes), device=boxes.device)[:, None]
        last = torch.where(is_best, indices, -1).amax(dim=0)
        assigned = torch.where(last >= 0, last, assigned)
    return assigned


def match_least_cost(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Pair rows with columns, each at most once and as many as possible, so that the sum of costs is least.

    Args:
        cost: (R, T) finite costs on any device; the matching runs on the CPU in float64.

    Returns:
        Row and column indices of the min(R, T) pairs, int64 on the device of the costs, ascending by row.

    Raises:
        ValueError: the matrix is not two-dimensional or a cost is not finite.
        MissingExtra: SciPy is not installed.

    Source: Crouse, "On implementing 2D rectangular assignment algorithms", IEEE TAES 52, 2016, in SciPy.

    Example:
        >>> rows, columns = match_least_cost(torch.tensor([[4.0, 1.0], [2.0, 9.0], [3.0, 3.0]]))
        >>> rows.tolist(), columns.tolist()
        ([0, 1], [1, 0])
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingExtra("scipy", "train", "matching queries with objects") from error
    if cost.ndim != 2:
        raise ValueError(f"cost must be a matrix (rows, columns), given {tuple(cost.shape)}")
    matrix = cost.detach().cpu().double().numpy()
    if not np.isfinite(matrix).all():
        raise ValueError("costs must be finite; NaN or infinity usually means that training diverged")
    rows, columns = linear_sum_assignment(matrix)
    return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)
