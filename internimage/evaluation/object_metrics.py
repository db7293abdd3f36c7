"""From ground truth and predictions to named metrics, one function for each metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from internimage.data.objects.annotation import ImageAnnotation
from internimage.evaluation.coco import (
    LVIS_LIMIT,
    PUBLISHED_LARGEST,
    STANDARD,
    Kind,
    coco_curves,
    coco_metrics,
    lvis_curves,
    lvis_metrics,
)
from internimage.evaluation.crowd_human import crowd_metrics
from internimage.evaluation.object_classes import ObjectClasses
from internimage.evaluation.open_images import open_images_precision
from internimage.evaluation.predictions import FoundObjects
from internimage.evaluation.voc import ClassPrecision, mean_precision, voc_precision
from internimage.moved import renamed_keywords
from internimage.options import Metric as Metric


@dataclass(frozen=True)
class Metrics:
    """Measured values of a metric.

    Args:
        values: name and value, 0..1; None where there is nothing to be found.
        per_class: one row for each class: its name and its values.
    """

    values: dict[str, float | None]
    per_class: tuple[dict[str, Any], ...]


@renamed_keywords(truth="targets")
def measure(
    metric: Metric,
    targets: Sequence[ImageAnnotation],
    found: Sequence[FoundObjects],
    classes: ObjectClasses,
    *,
    kinds: Sequence[Kind] = ("box",),
) -> Metrics:
    """Return the values of a metric.

    Args:
        metric: "coco", "lvis", "voc2007", "voc2012", "openimages" or "crowdhuman".
        targets: the ground truth of each image.
        found: what was found in each of them.
        classes: the classes of the data set.
        kinds: what "coco" and "lvis" compare: "box", "mask" or both.

    Raises:
        ValueError: the metric is unknown, or the data set lacks what it needs.
        MissingExtra: a package that it needs is not installed.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, given {metric!r}")
    return METRICS[metric](targets, found, classes, kinds)


def _coco(
    targets: Sequence[ImageAnnotation],
    found: Sequence[FoundObjects],
    classes: ObjectClasses,
    kinds: Sequence[Kind],
    *,
    is_lvis: bool = False,
) -> Metrics:
    if is_lvis and classes.frequencies is None:
        raise ValueError("the metric 'lvis' needs the frequency of each class, as the annotations of LVIS state it")
    values: dict[str, float | None] = {}
    rows = _named(classes, targets)
    limits = {"AP": LVIS_LIMIT} if is_lvis else {"AP": STANDARD, f"AP_at_{PUBLISHED_LARGEST}": PUBLISHED_LARGEST}
    for kind in kinds:
        curves = (lvis_curves if is_lvis else coco_curves)(targets, found, classes, kind=kind)
        values |= lvis_metrics(curves, kind, classes.frequencies or ()) if is_lvis else coco_metrics(curves, kind)
        for label, row in enumerate(rows):
            row |= {f"{kind}_{name}": curves.ap(limit=limit, classes=label) for name, limit in limits.items()}
    return Metrics(values, tuple(rows))


def _voc(
    targets: Sequence[ImageAnnotation],
    found: Sequence[FoundObjects],
    classes: ObjectClasses,
    _: Sequence[Kind],
    *,
    year: Literal[2007, 2012],
) -> Metrics:
    settings: dict[str, Any] = dict(num_classes=len(classes), year=year)
    middle, strict = (voc_precision(targets, found, iou=iou, **settings) for iou in (0.5, 0.75))
    values = {"mAP": mean_precision(middle), "mAP_at_iou_0.75": mean_precision(strict)}
    return Metrics(values, _rows(classes, middle))


def _open_images(
    targets: Sequence[ImageAnnotation], found: Sequence[FoundObjects], classes: ObjectClasses, _: Sequence[Kind]
) -> Metrics:
    entries = open_images_precision(targets, found, num_classes=len(classes), ancestors=classes.ancestors)
    return Metrics({"mAP": mean_precision(entries)}, _rows(classes, entries))


def _crowd_human(
    targets: Sequence[ImageAnnotation], found: Sequence[FoundObjects], classes: ObjectClasses, _: Sequence[Kind]
) -> Metrics:
    if len(classes) != 1:
        raise ValueError(f"the metric 'crowdhuman' is for one class, the data set has {len(classes)}")
    crowd = crowd_metrics(targets, found)
    values = {"AP": crowd.precision, "MR^-2": crowd.miss_rate, "JI": crowd.jaccard}
    [row] = _named(classes, targets)
    return Metrics(values, ({**row, "AP": crowd.precision},))


METRICS: dict[str, Callable[..., Metrics]] = {
    "coco": _coco,
    "lvis": partial(_coco, is_lvis=True),
    "voc2007": partial(_voc, year=2007),
    "voc2012": partial(_voc, year=2012),
    "openimages": _open_images,
    "crowdhuman": _crowd_human,
}


def _named(classes: ObjectClasses, targets: Sequence[ImageAnnotation]) -> list[dict[str, Any]]:
    """Start one row for each class: its name and its objects."""
    counts = [0] * len(classes)
    for target in targets:
        for label in target.labels[~target.is_special].tolist():
            counts[label] += 1
    return [{"name": name, "objects": count} for name, count in zip(classes.names, counts, strict=True)]


def _rows(classes: ObjectClasses, entries: Sequence[ClassPrecision]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"name": name, "objects": entry.objects, "found": entry.found, "AP": entry.value}
        for name, entry in zip(classes.names, entries, strict=True)
    )
