"""What an evaluation of a classifier found, beside what was published.

Shape legend: K classes of the data set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from internimage.checkpoints.catalog import CatalogEntry
from internimage.evaluation.accuracy import TOP_K, ClassScore
from internimage.evaluation.confusion import count_pairs


@dataclass(frozen=True)
class ClassificationReport:
    """What an evaluation found; every image that could be read counts exactly once.

    Args:
        confusion: (K, K) int64 counts; rows are the ground truth, columns the predictions. Where the model knows
            classes that the data set lacks, (K, K + 1): the last column counts predictions of these.
        top5_correct: images whose class is among the five best predictions.
        loss: mean cross entropy.
        class_names: names of the K classes.
        skipped: (index, reason) of each image that could not be read.
        published: metrics of the original by name ("top1"), 0..1.
        absent_classes: classes of the model that the data set lacks: as predictions they are wrong.
    """

    confusion: Tensor
    top5_correct: int
    loss: float
    class_names: tuple[str, ...]
    skipped: tuple[tuple[int, str], ...] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    absent_classes: tuple[str, ...] = ()

    quoted: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def of(
        cls, scores: Sequence[ClassScore], class_names: tuple[str, ...], *, absent_classes: tuple[str, ...], **rest: Any
    ) -> ClassificationReport:
        """Sum up the scores of all images, see the class for the other arguments."""
        number = len(class_names)
        targets, predictions = (torch.tensor([score[i] for score in scores]) for i in (0, 1))
        counts = count_pairs(targets, predictions, number)
        return cls(
            counts if absent_classes else counts[:, :number],
            sum(score.in_top5 for score in scores),
            math.fsum(score.loss for score in scores) / max(len(scores), 1),
            class_names,
            absent_classes=absent_classes,
            **rest,
        )

    @property
    def num_images(self) -> int:
        """Images that were read and counted."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Fraction of images whose best prediction is right, 0..1."""
        return int(self.confusion.diagonal().sum()) / max(self.num_images, 1)

    @property
    def top5(self) -> float:
        """Fraction of images whose class is among the five best predictions, 0..1."""
        return self.top5_correct / max(self.num_images, 1)

    def fields(self, dataset: str) -> dict[str, str | None]:
        """Return name and text of each metric; `dataset` is what the published ones were measured on."""
        published = self.published.get("top1")
        num_known = len(self.class_names) + len(self.absent_classes)
        return {
            "top-1": f"{self.top1:.2%}",
            "published": None if published is None else f"{published:.2%} on {dataset}",
            "top-5": f"{self.top5:.2%}" if num_known > TOP_K else None,  # else always 100 %
            "loss": f"{self.loss:.4f}",
        }

    def rows(self) -> list[tuple[str, float | None, float | None]]:
        """Return no table of metrics: `fields` names all."""
        return []

    def per_class(self) -> list[dict[str, Any]]:
        """Return one row for each class: name, images, right predictions, accuracy (None without images)."""
        totals, correct = self.confusion.sum(dim=1).tolist(), self.confusion.diagonal().tolist()
        return [
            {"name": name, "images": total, "correct": right, "accuracy": right / total if total else None}
            for name, total, right in zip(self.class_names, totals, correct, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready summary with the published metric beside the measured one."""
        return {
            "task": "classification",
            "images": self.num_images,
            "top1": self.top1,
            "published_top1": self.published.get("top1"),
            "top5": self.top5,
            "loss": self.loss,
            "skipped": [{"index": index, "reason": reason} for index, reason in self.skipped],
            "per_class": self.per_class(),
            "absent_classes": list(self.absent_classes),
            "confusion": self.confusion.tolist(),
        }


def published_metrics(entry: CatalogEntry) -> dict[str, float]:
    """Return the published metrics of a checkpoint, a row of the catalog, by the names of a report, 0..1."""
    return {"top1": entry.metrics["top1"] / 100} if "top1" in entry.metrics else {}
