"""Accuracy of a classifier: top-1, top-5, confusion matrix, table of classes.

Shape legend: N images, K classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from internimage.classification.model import Classifier
from internimage.classification.preprocess import prepare
from internimage.data import ImageDataset, Unreadable, open_dataset
from internimage.data.dataset import read_as
from internimage.data.parts import Part
from internimage.evaluation.batches import batches
from internimage.evaluation.classes import KnownClasses, known_classes
from internimage.evaluation.ground_truth import refuse_none_read
from internimage.layers.evaluation_mode import evaluation_mode

TOP_K = 5


@dataclass(frozen=True)
class ClassificationReport:
    """What an evaluation found; every image that could be read counts exactly once.

    Args:
        confusion: (K, K) int64 counts; rows are the truth, columns the answers. Where the model knows classes that the
            data set lacks, (K, K + 1): the last column counts answers of these.
        top5_correct: images whose class is among the five best answers.
        loss: mean cross entropy.
        class_names: names of the K classes.
        skipped: (number, reason) of each image that could not be read.
        published: top-1 of the original, 0..1, or None.
        absent_classes: classes of the model that the data set lacks: as answers they are wrong.
    """

    confusion: Tensor
    top5_correct: int
    loss: float
    class_names: tuple[str, ...]
    skipped: tuple[tuple[int, str], ...] = ()
    published: float | None = None
    absent_classes: tuple[str, ...] = ()

    @property
    def num_images(self) -> int:
        """Images that were read and counted."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of images whose best answer is right, 0..1."""
        return int(self.confusion.diagonal().sum()) / max(self.num_images, 1)

    @property
    def top5(self) -> float:
        """Share of images whose class is among the five best answers, 0..1."""
        return self.top5_correct / max(self.num_images, 1)

    def per_class(self) -> list[dict[str, Any]]:
        """Return one row for each class: name, images, right answers, accuracy (None without images)."""
        totals, correct = self.confusion.sum(dim=1).tolist(), self.confusion.diagonal().tolist()
        return [
            {"name": name, "images": total, "correct": right, "accuracy": right / total if total else None}
            for name, total, right in zip(self.class_names, totals, correct, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready summary with the published figure beside the measured one."""
        return {
            "task": "classification",
            "images": self.num_images,
            "top1": self.top1,
            "published_top1": self.published,
            "top5": self.top5,
            "loss": self.loss,
            "skipped": [{"index": index, "reason": reason} for index, reason in self.skipped],
            "per_class": self.per_class(),
            "absent_classes": list(self.absent_classes),
            "confusion": self.confusion.tolist(),
        }


class _Counts:
    """Running sums of an evaluation.

    Args:
        known: the K classes of the data set among the M of the model.
    """

    def __init__(self, known: KnownClasses) -> None:
        number = len(known.outputs)
        others = [output for output, place in enumerate(known.places) if place < 0] if known.absent else []
        self.order = None if known.is_identity else torch.tensor([*known.outputs.tolist(), *others])
        self.num_classes, self.num_columns = number, number + bool(others)
        self.confusion = torch.zeros(number * self.num_columns, dtype=torch.int64)
        self.top5_correct = 0
        self.loss_sum = 0.0

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count (N, M) logits against (N,) classes of the data set."""
        logits = outputs if self.order is None else outputs[:, self.order]
        best = logits.topk(min(TOP_K, logits.shape[1]), dim=1).indices
        pairs = targets * self.num_columns + best[:, 0].clamp(max=self.num_columns - 1)
        self.confusion += torch.bincount(pairs, minlength=self.confusion.numel())
        self.top5_correct += int((best == targets[:, None]).any(dim=1).sum())
        self.loss_sum += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))


def evaluate(
    model: Classifier,
    data: ImageDataset[int] | str | PathLike[str],
    *,
    split: Part = "val",
    batch_size: int = 64,
    workers: int = 0,
    max_unreadable: int = 50,
    published: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ClassificationReport:
    """Measure a classifier on every image of a data set.

    The model reads images with its own preprocessing, on its own device and in its own precision. Its classes are
    matched with those of the data by name; answers of classes that the data lacks are wrong answers. A model with the
    21,841 classes of ImageNet-22k is measured on the 1,000 of ImageNet-1k through the published table of rows.

    Args:
        model: the classifier; its mode is restored afterward.
        data: a folder, see `internimage.data.open_dataset`, or an opened data set.
        split: which part of a folder.
        batch_size: images of one forward pass, at least 1.
        workers: reading processes; 0 reads here.
        max_unreadable: broken images that are left out and listed in the report.
        published: top-1 of the original, 0..1, to stand beside the measured one.
        progress: called with (images done, images in all) after each batch.

    Raises:
        ValueError: the data has classes that the model does not know, or more than `max_unreadable` images are
            broken.
        FileNotFoundError: the folder lacks the data.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, given {batch_size}")
    dataset = open_dataset(data, split) if isinstance(data, str | PathLike) else data
    dataset = read_as(dataset, model.config.preprocess.reading)
    known = known_classes(model.config.class_names, model.config.num_classes, dataset.class_names)
    counts = _Counts(known)
    skipped: list[Unreadable] = []
    read = functools.partial(prepare, config=model.config.preprocess)
    done = 0
    with evaluation_mode(model):
        for batch in batches(dataset, read, batch_size=batch_size, workers=workers):
            skipped += batch.unreadable
            _refuse_too_many(skipped, max_unreadable)
            if batch.images is not None:
                with torch.inference_mode():
                    logits = model.run(batch.images.to(model.device, model.dtype)).float().cpu()
                counts.add(logits, torch.tensor(batch.targets))
            done += len(batch.targets) + len(batch.unreadable)
            if progress is not None:
                progress(done, len(dataset))
    refuse_none_read(done - len(skipped), [entry.reason for entry in skipped])
    return ClassificationReport(
        counts.confusion.view(counts.num_classes, counts.num_columns),
        counts.top5_correct,
        counts.loss_sum / max(len(dataset) - len(skipped), 1),
        dataset.class_names,
        tuple((entry.index, entry.reason) for entry in skipped),
        published,
        known.absent,
    )


def _refuse_too_many(skipped: list[Unreadable], limit: int) -> None:
    if len(skipped) > limit:
        reasons = "\n".join(f"  {entry.reason}" for entry in skipped[:10])
        raise ValueError(f"more than {limit} images cannot be read (max_unreadable); the first ones:\n{reasons}")
