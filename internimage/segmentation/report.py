"""What an evaluation of a segmentor found, beside what was published."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from internimage.checkpoints.catalog import CatalogEntry
from internimage.evaluation.confusion import PixelConfusion
from internimage.segmentation.tta import SINGLE_SCALE, MultiScale


@dataclass(frozen=True)
class ImageScore:
    """The figures of one image.

    Args:
        index: number in the data set.
        name: name of the file.
        miou: mean intersection over union of the classes in truth or answer, 0..1; NaN without labels.
        aacc: share of right pixels, 0..1; NaN without labels.
    """

    index: int
    name: str
    miou: float
    aacc: float


@dataclass(frozen=True)
class SegmentationReport:
    """What an evaluation of a segmentor found; every image that could be read counts exactly once.

    Args:
        confusion: pixels of all images, truth against answers.
        class_names: names of the K classes.
        images: the figures of each image, in order.
        skipped: (number, reason) of each image that could not be read.
        published: mIoU of the original, 0..1, or None.
        looks: how images were looked at.
        absent_classes: classes of the model that the data set lacks: as answers they are wrong, in means they are not.
    """

    confusion: PixelConfusion
    class_names: tuple[str, ...]
    images: tuple[ImageScore, ...]
    skipped: tuple[tuple[int, str], ...] = ()
    published: float | None = None
    looks: MultiScale = SINGLE_SCALE
    absent_classes: tuple[str, ...] = ()

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
        """Mean share of right pixels of the classes, 0..1."""
        return self.confusion.macc

    @property
    def aacc(self) -> float:
        """Share of right pixels, 0..1."""
        return self.confusion.aacc

    def rows(self) -> list[tuple[str, float | None, float | None]]:
        """Return (name, measured, published) of every figure, 0..1; None where there is none."""
        return [
            ("mIoU", _known(self.miou), self.published),
            ("mAcc", _known(self.macc), None),
            ("aAcc", _known(self.aacc), None),
        ]

    def per_class(self) -> list[dict[str, Any]]:
        """Return one row for each class: name, iou, accuracy (None where the class is absent) and true pixels."""
        confusion = self.confusion
        rows = zip(
            self.class_names,
            confusion.iou.tolist(),
            confusion.recall.tolist(),
            confusion.true_pixels.tolist(),
            strict=True,
        )
        return [
            {"name": name, "iou": _known(iou), "accuracy": _known(recall), "pixels": pixels}
            for name, iou, recall, pixels in rows
        ]

    def worst(self, count: int = 10) -> list[ImageScore]:
        """Return the images with the smallest mean intersection over union, worst first."""
        labeled = [score for score in self.images if not math.isnan(score.miou)]
        return sorted(labeled, key=lambda score: score.miou)[:count]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready summary with the published figure beside the measured one."""
        return {
            "task": "segmentation",
            "images": self.num_images,
            **{name: measured for name, measured, _ in self.rows()},
            "published_mIoU": self.published,
            "ratios": list(self.looks.ratios),
            "flip": self.looks.flip,
            "skipped": [{"index": index, "reason": reason} for index, reason in self.skipped],
            "per_class": self.per_class(),
            "absent_classes": list(self.absent_classes),
            "worst": [dataclasses.asdict(score) for score in self.worst()],
        }


def published_miou(entry: CatalogEntry, *, multi_scale: bool = False) -> float | None:
    """Return the published mIoU of a checkpoint, 0..1, or None where there is none.

    Args:
        entry: row of the catalog.
        multi_scale: the figure of several looks at each image instead of one.

    Example:
        >>> from internimage import info
        >>> published_miou(info("upernet_internimage_t_512_160k_ade20k"))
        0.479
    """
    value = entry.metrics.get("mIoU_ms" if multi_scale else "mIoU_ss")
    return None if value is None else round(value / 100, 6)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
