"""Average precision as the OpenImages challenge measures it: a hierarchy of classes, groups, checked classes.

Shape legend: D found boxes, G true boxes, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from internimage.data.objects.annotation import ImageAnnotation
from internimage.evaluation.matching import first_of_each, overlaps
from internimage.evaluation.predictions import FoundObjects
from internimage.evaluation.voc import RIGHT, WRONG, ClassPrecision, precision_by_class
from internimage.moved import renamed_keywords


@renamed_keywords(truth="targets", group_share="group_fraction")
def open_images_precision(
    targets: Sequence[ImageAnnotation],
    found: Sequence[FoundObjects],
    *,
    num_classes: int,
    ancestors: np.ndarray | None,
    iou: float = 0.5,
    group_fraction: float = 0.5,
    only_checked_classes: bool = True,
    has_groups: bool = True,
) -> list[ClassPrecision]:
    """Return the average precision of each class.

    A true box also counts for every class above its own, and so does a prediction where the image was checked for that
    class. Predictions of classes that the image was not checked for are dropped: those neither boxed nor among
    `negative_labels` (the image-level labels, present or absent). A group (`is_special`) is found when a prediction
    that belongs to no single object lies in it; all such predictions count once.

    Args:
        targets: the ground truth of each image.
        found: what was found in each of them.
        num_classes: K.
        ancestors: (K, K) bool, see `ObjectClasses`; None where the classes have no hierarchy.
        iou: overlap from which a prediction is right, 0..1.
        group_fraction: fraction of a prediction that must lie in a group, 0..1.
        only_checked_classes: whether predictions of unchecked classes are dropped.
        has_groups: False takes groups for single objects.

    Source: OpenImages V4, section 6.2, https://arxiv.org/abs/1811.00982.
    """
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    wanted = np.zeros(num_classes, dtype=np.int64)
    for target, own in zip(targets, found, strict=True):
        if ancestors is not None:
            target = _with_ancestors(target, ancestors)
        checked = _checked(own, target, ancestors, only_checked_classes)
        wanted += np.bincount(target.labels, minlength=num_classes)
        for label in np.unique(checked.labels).tolist():
            part = checked.labels == label
            objects = target.labels == label
            is_group = target.is_special[objects] & has_groups
            boxes, scores = checked.boxes_xyxy[part], checked.scores[part]
            scores, is_right = _outcomes(boxes, scores, target.boxes_xyxy[objects], is_group, iou, group_fraction)
            rows.append((np.full(len(scores), label), scores, np.where(is_right, RIGHT, WRONG)))
    return precision_by_class(rows, wanted)


def _with_ancestors(target: ImageAnnotation, ancestors: np.ndarray) -> ImageAnnotation:
    """Repeat each true box for every class above its own."""
    rows, labels = ancestors[target.labels].nonzero()
    return replace(target.take(rows), labels=labels)


def _checked(found: FoundObjects, target: ImageAnnotation, ancestors: np.ndarray | None, drops: bool) -> FoundObjects:
    """Repeat each prediction for the checked classes above its own, and drop those of unchecked classes."""
    num_classes = (len(ancestors) if ancestors is not None else int(found.labels.max(initial=0))) + 1
    is_checked = np.zeros(max(num_classes, int(target.labels.max(initial=0)) + 1, 1), dtype=bool)
    is_checked[target.labels] = True
    is_checked[[label for label in target.negative_labels if label < len(is_checked)]] = True
    rows, labels = np.arange(len(found)), found.labels
    if ancestors is not None and len(found):
        rows, labels = ancestors[found.labels].nonzero()
        keep = is_checked[labels] | (labels == found.labels[rows])
        rows, labels = rows[keep], labels[keep]
    if drops:
        rows, labels = rows[is_checked[labels]], labels[is_checked[labels]]
    return FoundObjects(found.boxes_xyxy[rows], found.scores[rows], labels)


def _outcomes(
    boxes: np.ndarray, scores: np.ndarray, targets: np.ndarray, is_group: np.ndarray, iou: float, group_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the predictions that count, and which of them are right, for one class of one image."""
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    is_right = np.zeros(len(boxes), dtype=bool)
    if not is_group.all():
        shared = overlaps(boxes, targets[~is_group])
        is_right = first_of_each(np.where(shared.max(axis=1) >= iou, shared.argmax(axis=1), -1))
    if not is_group.any():
        return scores, is_right
    inside = overlaps(boxes, targets[is_group], "iof")
    group = np.where(~is_right & (inside.max(axis=1) >= group_fraction), inside.argmax(axis=1), -1)
    best = first_of_each(group)  # predictions are sorted, so the first is the best
    counts = (group < 0) | best
    return scores[counts], (is_right | best)[counts]
