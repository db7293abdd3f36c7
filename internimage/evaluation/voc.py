"""Average precision as Pascal VOC measures it.

Shape legend: D found boxes, G true boxes, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from internimage.data.objects.annotation import ImageAnnotation
from internimage.evaluation.matching import area_under, curve, first_of_each, mean_of_eleven, overlaps
from internimage.evaluation.predictions import FoundObjects
from internimage.moved import renamed_keywords

RIGHT, WRONG, NOT_COUNTED = 1, 0, -1


@dataclass(frozen=True)
class ClassPrecision:
    """The average precision of one class.

    Args:
        objects: how many there are to be found.
        found: how many predictions there are.
        value: average precision, 0..1; None where there is nothing to be found.
    """

    objects: int
    found: int
    value: float | None


def mean_precision(classes: Sequence[ClassPrecision]) -> float | None:
    """Return the mean over the classes that have objects, None where none has."""
    values = [entry.value for entry in classes if entry.value is not None]
    return float(np.mean(values)) if values else None


@renamed_keywords(truth="targets")
def voc_precision(
    targets: Sequence[ImageAnnotation],
    found: Sequence[FoundObjects],
    *,
    num_classes: int,
    year: Literal[2007, 2012],
    iou: float = 0.5,
    extent: float = 1.0,
) -> list[ClassPrecision]:
    """Return the average precision of each class.

    Each prediction belongs to the true object of its class that it overlaps most; the best of several predictions of
    one object is right, the others are wrong. Difficult objects (`is_special`) need not be found, and predictions of
    them do not count.

    Args:
        targets: the ground truth of each image; corners name the first and the last pixel of a box, counted from 0.
        found: what was found in each of them.
        num_classes: K.
        year: 2007 takes the mean precision at eleven recalls, 2012 the area under the curve.
        iou: overlap from which a prediction is right, 0..1.
        extent: added to widths and heights, 1 for corners that name pixels.

    Source: The Pascal Visual Object Classes Challenge, section 4.2, https://doi.org/10.1007/s11263-009-0275-4.
    """
    rows = [
        (own.labels, own.scores, voc_outcomes(target, own, iou=iou, extent=extent))
        for target, own in zip(targets, found, strict=True)
        if len(own)
    ]
    counts = [np.bincount(target.labels[~target.is_special], minlength=num_classes) for target in targets]
    wanted = np.sum(counts, axis=0) if counts else np.zeros(num_classes, dtype=np.int64)
    return precision_by_class(rows, wanted, mean_of_eleven if year == 2007 else area_under)


def precision_by_class(
    found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    wanted: np.ndarray,
    summarize: Callable[[np.ndarray, np.ndarray], float] = area_under,
) -> list[ClassPrecision]:
    """Return the average precision of each class.

    Args:
        found: labels, scores and outcomes of some predictions, of one class or more; in all, those of a data set.
        wanted: (K,) objects that are to be found.
        summarize: maps recall and precision over the predictions to the average precision.
    """
    nothing = (np.zeros(0, int), np.zeros(0), np.zeros(0, int))
    labels, scores, outcome = (np.concatenate(parts) for parts in zip(nothing, *found, strict=True))
    order = np.argsort(labels, kind="stable")
    limits = np.searchsorted(labels, np.arange(len(wanted) + 1), sorter=order)
    classes: list[ClassPrecision] = []
    for label, number in enumerate(wanted.tolist()):
        own = order[limits[label] : limits[label + 1]]
        counted = own[outcome[own] != NOT_COUNTED]
        value = summarize(*curve(scores[counted], outcome[counted] == RIGHT, number)) if number else None
        classes.append(ClassPrecision(number, len(own), value))
    return classes


def voc_outcomes(target: ImageAnnotation, found: FoundObjects, *, iou: float, extent: float) -> np.ndarray:
    """Return (D,) `RIGHT`, `WRONG` or `NOT_COUNTED` for the predictions for one image."""
    outcome = np.full(len(found), WRONG)
    if not len(target.labels):
        return outcome
    order = np.argsort(-found.scores, kind="stable")
    shared = overlaps(found.boxes_xyxy[order], target.boxes_xyxy, extent=extent)
    shared[found.labels[order][:, None] != target.labels[None]] = -1.0
    shared[:, target.is_special] -= 1e-12  # of equal overlaps, that with an object to be found comes first
    nearest = shared.argmax(axis=1)
    is_match = shared.max(axis=1) >= iou
    is_first = first_of_each(np.where(is_match, nearest, -1))
    outcome[order[is_first]] = RIGHT
    outcome[order[is_match & target.is_special[nearest]]] = NOT_COUNTED
    return outcome
