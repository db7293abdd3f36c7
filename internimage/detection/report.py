"""What an evaluation of a detector found, beside what was published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from internimage.checkpoints.catalog import CatalogEntry
from internimage.evaluation.object_metrics import Metric, Metrics
from internimage.moved import renamed_attribute, renamed_keywords

# Of each metric: how its data sets' names begin, and name in the catalog -> (whether views were merged, our name).
PUBLISHED: dict[str, tuple[tuple[str, ...], dict[str, tuple[bool, str]]]] = {
    "coco": (
        ("coco", "closet"),
        {
            "boxAP": (False, "box_AP"),
            "maskAP": (False, "mask_AP"),
            "boxAP_val_ss": (False, "box_AP"),
            "boxAP_val_tta": (True, "box_AP"),
        },
    ),
    "lvis": (("lvis",), {"boxAP_val_ss": (False, "box_AP"), "boxAP_val_ms": (True, "box_AP")}),
    "voc2007": (("voc",), {"VOC2007": (False, "mAP")}),
    "voc2012": (("voc",), {"VOC2012": (False, "mAP")}),
    "openimages": (("openimages",), {"mAP_ss": (False, "mAP")}),
}
LVIS_MINIVAL = "boxAP_minival_ss"


@dataclass(frozen=True)
class DetectionReport:
    """What an evaluation of a detector found.

    Args:
        metric: how it was measured.
        metrics: the measured values.
        num_images: images that were read and counted.
        skipped: (index, reason) of each image that could not be read.
        published: metrics of the original by the names of `metrics`, 0..1.
        results_file: the COCO results file, or None where nothing was kept.
        absent_classes: classes of the model that the data set lacks; no metric is about them.
    """

    metric: Metric
    metrics: Metrics
    num_images: int
    skipped: tuple[tuple[int, str], ...] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    results_file: Path | None = None
    absent_classes: tuple[str, ...] = ()

    quoted: ClassVar[frozenset[str]] = frozenset(
        {"box_AP", "mask_AP", "box_AP50", "mask_AP50", "mAP", "AP", "MR^-2", "JI"}
    )
    figures = renamed_attribute("figures", "metrics")

    def fields(self, dataset: str) -> dict[str, str | None]:
        """Return nothing: `rows` names all metrics."""
        return {}

    def rows(self) -> list[tuple[str, float | None, float | None]]:
        """Return (name, measured, published) of every metric; None where there is none."""
        return [(name, value, self.published.get(name)) for name, value in self.metrics.values.items()]

    def per_class(self) -> list[dict[str, Any]]:
        """Return one row for each class: its name, its objects and its metrics."""
        return [dict(row) for row in self.metrics.per_class]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready summary with the published metrics beside the measured ones."""
        return {
            "task": "detection",
            "metric": self.metric,
            "images": self.num_images,
            "figures": dict(self.metrics.values),
            "published": dict(self.published),
            "skipped": [{"index": index, "reason": reason} for index, reason in self.skipped],
            "per_class": self.per_class(),
            "absent_classes": list(self.absent_classes),
            "results_file": None if self.results_file is None else str(self.results_file),
        }


@renamed_keywords(several_looks="tta")
def published_metrics(
    entry: CatalogEntry, metric: Metric, *, tta: bool = False, lvis_minival: bool = False
) -> dict[str, float]:
    """Return the published metrics of a checkpoint by the names of a report, 0..1.

    Args:
        entry: row of the catalog.
        metric: how it is measured.
        tta: whether the predictions of several views of each image are merged.
        lvis_minival: whether the 5,000 images of LVIS minival are measured instead of all of val.

    Example:
        >>> from internimage import info
        >>> published_metrics(info("mask_rcnn_internimage_t_fpn_1x_coco"), "coco")["box_AP"]
        0.472
    """
    beginnings, table = PUBLISHED.get(metric, ((), {}))
    if not entry.dataset.lower().startswith(beginnings):
        return {}
    if metric == "lvis" and lvis_minival:
        table = {LVIS_MINIVAL: (False, "box_AP")}
    return {
        ours: round(entry.metrics[name] / 100, 6)
        for name, (is_merged, ours) in table.items()
        if name in entry.metrics and is_merged == tta
    }
