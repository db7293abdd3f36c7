"""Average precision and recall of COCO and of LVIS, for boxes and masks.

The matching and the counting are those of the package `faster-coco-eval`, whose metrics equal those of the COCO tools.

Shape legend: T overlap thresholds, R recall levels, K classes, A area ranges, M limits on the number of predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from internimage.data.objects.annotation import ImageAnnotation
from internimage.data.objects.segmentations import faster_coco_eval
from internimage.evaluation.object_classes import ObjectClasses
from internimage.evaluation.predictions import FoundObjects
from internimage.moved import renamed_keywords

Kind = Literal["box", "mask"]
AREAS = ("all", "small", "medium", "large")
# The COCO tools count 1, 10 and 100 predictions for each image and class; the published detectors were measured with
# 100, 300 and 1000.
LIMITS = (1, 10, 100, 300, 1000)
STANDARD, PUBLISHED_LARGEST = 100, 1000
LVIS_LIMIT = 300
PURPOSE = "measuring average precision"
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


@dataclass(frozen=True)
class Curves:
    """Precision and recall of every class, NaN where there is nothing to be found.

    Args:
        precision: (T, R, K, A, M) 0..1.
        recall: (T, K, A, M) 0..1.
        limits: M limits on the number of predictions for each image and class.
    """

    precision: np.ndarray
    recall: np.ndarray
    limits: tuple[int, ...]

    def ap(
        self, *, limit: int, iou: float | None = None, area: str = "all", classes: np.ndarray | int | None = None
    ) -> float | None:
        """Return the mean precision over thresholds, recalls and classes; None where there is nothing to be found."""
        rows = slice(None) if iou is None else slice(round((iou - 0.5) / 0.05), round((iou - 0.5) / 0.05) + 1)
        chosen = self.precision[rows, :, :, AREAS.index(area), self.limits.index(limit)]
        return _mean(chosen if classes is None else chosen[:, :, classes])

    def ar(self, *, limit: int, area: str = "all") -> float | None:
        """Return the mean recall over thresholds and classes; None where there is nothing to be found."""
        return _mean(self.recall[:, :, AREAS.index(area), self.limits.index(limit)])


@renamed_keywords(truth="targets")
def coco_curves(
    targets: Sequence[ImageAnnotation], found: Sequence[FoundObjects], classes: ObjectClasses, *, kind: Kind = "box"
) -> Curves:
    """Match predictions with true objects as COCO does.

    Args:
        targets: the ground truth of each image; special objects are crowds, which need not be found and swallow any
            number of predictions. Of these, `is_ignored` are objects to be found: the COCO tools do not read the key
            "ignore".
        found: what was found in each of them.
        classes: the classes of the data set.
        kind: compare boxes or masks.

    Raises:
        MissingExtra: the package `faster-coco-eval` is not installed.
        ValueError: masks are to be compared, and one side has none.

    Source: https://cocodataset.org/#detection-eval.
    """
    return _curves(targets, found, classes, kind, limits=LIMITS, is_lvis=False)


@renamed_keywords(truth="targets")
def lvis_curves(
    targets: Sequence[ImageAnnotation], found: Sequence[FoundObjects], classes: ObjectClasses, *, kind: Kind = "box"
) -> Curves:
    """Match predictions with true objects as LVIS does: the 300 best predictions of each image, whatever their class.

    Predictions count for the classes in an image and for those known to be absent (`negative_labels`); where a class is
    incomplete (`incomplete_labels`), surplus predictions do not count. Predictions and true objects without area do not
    exist.

    Arguments and exceptions are those of `coco_curves`.

    Source: LVIS, section 2, https://arxiv.org/abs/1908.03195.
    """
    targets = [target.take(np.flatnonzero(target.areas > 0)) for target in targets]
    checked = [_checked(own.best(LVIS_LIMIT), target, kind) for own, target in zip(found, targets, strict=True)]
    return _curves(targets, checked, classes, kind, limits=(LVIS_LIMIT,), is_lvis=True)


def coco_metrics(curves: Curves, kind: Kind) -> dict[str, float | None]:
    """Name the metrics of COCO: those of the COCO tools, then those comparable with the published detectors."""
    at = STANDARD
    metrics = {f"{kind}_AP": curves.ap(limit=at)}
    metrics |= {f"{kind}_AP{round(100 * iou)}": curves.ap(limit=at, iou=iou) for iou in (0.5, 0.75)}
    metrics |= {f"{kind}_AP_{area}": curves.ap(limit=at, area=area) for area in AREAS[1:]}
    metrics |= {f"{kind}_AR_{limit}": curves.ar(limit=limit) for limit in (1, 10, at)}
    metrics |= {f"{kind}_AR_{area}": curves.ar(limit=at, area=area) for area in AREAS[1:]}
    at = PUBLISHED_LARGEST
    metrics |= {f"{kind}_AP{round(100 * iou)}_at_{at}": curves.ap(limit=at, iou=iou) for iou in (0.5, 0.75)}
    metrics |= {f"{kind}_AP_{area}_at_{at}": curves.ap(limit=at, area=area) for area in AREAS[1:]}
    metrics |= {f"{kind}_AR_{limit}": curves.ar(limit=limit) for limit in (300, at)}
    return metrics | {f"{kind}_AR_{area}_at_{at}": curves.ar(limit=at, area=area) for area in AREAS[1:]}


def lvis_metrics(curves: Curves, kind: Kind, frequencies: Sequence[str]) -> dict[str, float | None]:
    """Name the metrics of LVIS; `frequencies` holds "r", "c" or "f" for each class."""
    at = LVIS_LIMIT
    metrics = {f"{kind}_AP": curves.ap(limit=at)}
    metrics |= {f"{kind}_AP{round(100 * iou)}": curves.ap(limit=at, iou=iou) for iou in (0.5, 0.75)}
    metrics |= {f"{kind}_AP_{area}": curves.ap(limit=at, area=area) for area in AREAS[1:]}
    letters = np.array(list(frequencies))
    for letter, name in FREQUENCIES.items():
        metrics[f"{kind}_AP_{name}"] = curves.ap(limit=at, classes=np.flatnonzero(letters == letter))
    metrics[f"{kind}_AR_{at}"] = curves.ar(limit=at)
    return metrics | {f"{kind}_AR_{area}_{at}": curves.ar(limit=at, area=area) for area in AREAS[1:]}


def _curves(
    targets: Sequence[ImageAnnotation],
    found: Sequence[FoundObjects],
    classes: ObjectClasses,
    kind: Kind,
    *,
    limits: tuple[int, ...],
    is_lvis: bool,
) -> Curves:
    coco = faster_coco_eval(PURPOSE)
    if kind == "mask" and not all(len(target.labels) == 0 or target.segmentations for target in targets):
        raise ValueError("the ground truth has no masks; measure boxes, or take annotations with segmentations")
    if kind == "mask" and not all(len(own) == 0 or own.masks is not None for own in found):
        raise ValueError("the predictions have no masks; measure boxes, or take a model with masks")
    true_set = coco.COCO()
    true_set.dataset = {
        "images": [_image(i, target) for i, target in enumerate(targets)],
        "annotations": _annotations(targets, kind),
        "categories": [
            {"id": label, "name": name} | ({"frequency": classes.frequencies[label]} if classes.frequencies else {})
            for label, name in enumerate(classes.names)
        ],
    }
    true_set.createIndex()
    found_set = true_set.loadRes(_entries(found, kind))
    evaluation = coco.COCOeval_faster(true_set, found_set, "bbox" if kind == "box" else "segm", lvis_style=is_lvis)
    evaluation.params.maxDets = list(limits)
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = (np.asarray(evaluation.eval[name], dtype=np.float64) for name in ("precision", "recall"))
    return Curves(np.where(precision < 0, np.nan, precision), np.where(recall < 0, np.nan, recall), limits)


def _checked(own: FoundObjects, target: ImageAnnotation, kind: Kind) -> FoundObjects:
    """Leave out predictions without area, and those of classes that nobody looked for in the image.

    The second is for faster-coco-eval: an image without objects where no prediction counts ends it with an IndexError.
    """
    classes = np.union1d(target.labels, np.array(sorted(target.negative_labels), dtype=np.int64))
    keep = np.isin(own.labels, classes)
    if kind == "mask" and own.masks:
        keep &= faster_coco_eval(PURPOSE).mask.area(list(own.masks)) > 0
    else:
        keep &= (own.boxes_xyxy[:, 2:] - own.boxes_xyxy[:, :2]).prod(axis=1) > 0
    return own if keep.all() else own.take(np.flatnonzero(keep))


def _image(number: int, target: ImageAnnotation) -> dict[str, Any]:
    return {
        "id": number,
        "height": target.size_hw[0],
        "width": target.size_hw[1],
        "neg_category_ids": sorted(target.negative_labels),
        "not_exhaustive_category_ids": sorted(target.incomplete_labels),
    }


def _annotations(targets: Sequence[ImageAnnotation], kind: Kind) -> list[dict[str, Any]]:
    """Return the true objects as the COCO tools read them; their ids start at 1, since 0 means none there."""
    annotations: list[dict[str, Any]] = []
    for i, target in enumerate(targets):
        sides = _sides(target.boxes_xyxy)
        is_crowd = target.is_special if target.is_ignored is None else target.is_special & ~target.is_ignored
        if kind == "mask" and target.lost_masks is not None:
            is_crowd = is_crowd | target.lost_masks
        rows = zip(sides, target.labels.tolist(), target.areas.tolist(), is_crowd.tolist(), strict=True)
        for j, (box, label, area, crowd) in enumerate(rows):
            entry: dict[str, Any] = {"id": len(annotations) + 1, "image_id": i, "category_id": label, "bbox": box}
            entry |= {"area": area, "iscrowd": int(crowd)}
            if kind == "mask" and target.segmentations is not None:
                entry["segmentation"] = target.segmentations[j]
            annotations.append(entry)
    return annotations


def _entries(found: Sequence[FoundObjects], kind: Kind) -> list[dict[str, Any]]:
    """Return the predictions as the COCO tools read them; a mask is measured by its own area, not by its box."""
    entries: list[dict[str, Any]] = []
    for i, own in enumerate(found):
        masks: Sequence[Mapping[str, Any]] = own.masks or ()
        sides = _sides(own.boxes_xyxy)
        for j, (label, score) in enumerate(zip(own.labels.tolist(), own.scores.tolist(), strict=True)):
            shape = {"segmentation": masks[j]} if kind == "mask" else {"bbox": sides[j]}
            entries.append({"image_id": i, "category_id": label, "score": score, **shape})
    return entries


def _sides(boxes: np.ndarray) -> list[list[float]]:
    """Turn corners into (left, top, width, height)."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None
