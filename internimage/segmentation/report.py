"""What an evaluation of a segmentor found, beside what was published."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from internimage.checkpoints.catalog import CatalogEntry
from internimage.evaluation.confusion import PixelConfusion
from internimage.moved import renamed_attribute, renamed_keywords
from internimage.segmentation.tta import SegmentationTTA


@dataclass(frozen=True)
class ImageScore:
    """The metrics of one image, 0..1; NaN without labels."""

    index: int  # in the data set
    name: str  # of the file
    miou: float  # mean intersection over union of the classes in ground truth or prediction
    aacc: float  # fraction of right pixels


@dataclass(frozen=True)
class SegmentationReport:
    """What an evaluation of a segmentor found; every image that could be read counts exactly once.

    Args:
        confusion: pixels of all images, ground truth against predictions.
        class_names: names of the K classes.
        images: the metrics of each image, in order.
        skipped: (index, reason) of each image that could not be read.
        published: metrics of the original by name ("mIoU"), 0..1.
        tta: which views of each image were taken, None for one.
        absent_classes: classes of the model that the data set lacks: as predictions they are wrong, means leave them
            out.
    """

    confusion: PixelConfusion
    class_names: tuple[str, ...]
    images: tuple[ImageScore, ...]
    skipped: tuple[tuple[int, str], ...] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    tta: SegmentationTTA | None = None
    absent_classes: tuple[str, ...] = ()

    quoted: ClassVar[frozenset[str]] = frozenset({"mIoU", "mAcc", "aAcc"})
    looks = renamed_attribute("looks", "tta")

    @property
    def num_images(self) -> int:
        """Images that were read and counted."""
        return len(self.images)

    @property
    def miou(self) -> float:
        """Mean intersection over union of the classes, 0..1."""
        return self.confusion.miou

    @property
    def macc(self) -> float:
        """Mean fraction of right pixels of the classes, 0..1."""
        return self.confusion.macc

    @property
    def aacc(self) -> float:
        """Fraction of right pixels, 0..1."""
        return self.confusion.aacc

    def rows(self) -> list[tuple[str, float | None, float | None]]:
        """Return (name, measured, published) of every metric, 0..1; None where there is none."""
        measured = {"mIoU": self.miou, "mAcc": self.macc, "aAcc": self.aacc}
        return [(name, _known(value), self.published.get(name)) for name, value in measured.items()]

    def fields(self, dataset: str) -> dict[str, str | None]:
        """Return nothing: `rows` names all metrics."""
        return {}

    def per_class(self) -> list[dict[str, Any]]:
        """Return one row for each class: name, iou, accuracy (None where the class is absent) and true pixels."""
        columns = (self.confusion.iou, self.confusion.recall, self.confusion.true_pixels)
        rows = zip(self.class_names, *(column.tolist() for column in columns), strict=True)
        return [
            {"name": name, "iou": _known(iou), "accuracy": _known(recall), "pixels": pixels}
            for name, iou, recall, pixels in rows
        ]

    def worst(self, count: int = 10) -> list[ImageScore]:
        """Return the images with the smallest mean intersection over union, worst first."""
        labeled = [score for score in self.images if not math.isnan(score.miou)]
        return sorted(labeled, key=lambda score: score.miou)[:count]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready summary with the published metric beside the measured one."""
        return {
            "task": "segmentation",
            "images": self.num_images,
            **{name: measured for name, measured, _ in self.rows()},
            "published_mIoU": self.published.get("mIoU"),
            "ratios": [1.0] if self.tta is None else list(self.tta.ratios),
            "flip": self.tta is not None and self.tta.flip,
            "skipped": [{"index": index, "reason": reason} for index, reason in self.skipped],
            "per_class": self.per_class(),
            "absent_classes": list(self.absent_classes),
            "worst": [dataclasses.asdict(score) for score in self.worst()],
        }


@renamed_keywords(multi_scale="tta")
def published_metrics(entry: CatalogEntry, *, tta: bool = False) -> dict[str, float]:
    """Return the published metrics of a checkpoint by the names of a report, 0..1.

    Args:
        entry: row of the catalog.
        tta: whether several views of each image were taken.

    Example:
        >>> from internimage import info
        >>> published_metrics(info("upernet_internimage_t_512_160k_ade20k"))
        {'mIoU': 0.479}
    """
    value = entry.metrics.get("mIoU_ms" if tta else "mIoU_ss")
    return {} if value is None else {"mIoU": round(value / 100, 6)}


def published_miou(entry: CatalogEntry, *, multi_scale: bool = False) -> float | None:
    """Return the published mIoU alone: the old form of `published_metrics`, which goes with the next release."""
    return published_metrics(entry, tta=multi_scale).get("mIoU")


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
