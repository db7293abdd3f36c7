"""Metrics of a classifier on a data set, image by image, to be cut and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path

import torch

from internimage import parallel
from internimage.checkpoints.catalog import info
from internimage.classification.model import Classifier
from internimage.classification.preprocess import encode_observation, prepare
from internimage.classification.report import ClassificationReport, published_metrics
from internimage.data import ImageDataset, open_dataset
from internimage.data.dataset import read_as
from internimage.data.parts import Part
from internimage.evaluation.accuracy import ClassScore, score_logits
from internimage.evaluation.classes import known_classes
from internimage.evaluation.record_log import Entry, RecordFormat, record_log
from internimage.evaluation.run import Item, PassSettings, evaluate_images
from internimage.files import replacing
from internimage.moved import published_by_name
from internimage.types import Images
from internimage.visualize import draw_confusion

RECORDS = "progress.jsonl"


def evaluate_classification(
    model: Classifier,
    data: ImageDataset[int] | str | PathLike[str],
    *,
    split: Part = "val",
    batch_size: int = 64,
    workers: int = 0,
    folder: str | PathLike[str] | None = None,
    max_unreadable: int = 50,
    published: Mapping[str, float] | str | None = None,
    confusion: str | PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ClassificationReport:
    """Measure a classifier on every image of a data set.

    The model reads images with its own preprocessing, on its own device and in its own precision. Its classes are
    matched with those of the data by name; predictions of classes that the data lacks are wrong. A model with the
    21,841 classes of ImageNet-22k is measured on the 1,000 of ImageNet-1k through the published table of rows.

    Args:
        model: the classifier; its mode is restored afterwards.
        data: a folder, see `internimage.data.open_dataset`, or an opened data set.
        split: which part of a folder.
        batch_size: images of one forward pass, at least 1.
        workers: reading processes; 0 reads here.
        folder: where scores are kept, so that a run that was cut goes on where it stopped; None keeps nothing.
        max_unreadable: broken images that are left out and listed in the report.
        published: metrics of the original by name ("top1"), 0..1, to stand beside the measured ones, or the name of a
            published checkpoint.
        confusion: file for a drawing of the confusion matrix, None for none.
        progress: called with (images done, images in all) after each batch.

    Raises:
        ValueError: the data has classes that the model does not know, more than `max_unreadable` images (or all) are
            broken, or `folder` holds scores of another model or another data set.
        FileNotFoundError: the folder lacks the data.
        BlockingIOError: another process works in `folder`.
    """
    settings = PassSettings(batch_size, workers, max_unreadable, progress)
    dataset = open_dataset(data, split) if isinstance(data, str | PathLike) else data
    config = model.config.preprocess
    dataset = read_as(dataset, config.reading)
    known = known_classes(model.config.class_names, model.config.num_classes, dataset.class_names)
    order = torch.from_numpy(known.order)

    def predict(images: Images, items: list[Item[int]]) -> list[ClassScore]:
        if model.takes_metadata:
            images = replace(images, metadata=encode_observation([item.observation for item in items]))
        with torch.inference_mode():
            logits = model.run(images.to(model.device, model.dtype)).float().cpu()
        return score_logits(logits[:, order], torch.tensor([item.target for item in items]))

    path = None if folder is None else Path(folder) / RECORDS
    with record_log(path, SCORES, model, repr(config), dataset) as log:
        read = partial(prepare, config=config)
        found = evaluate_images(model, dataset, read, predict, log=log, settings=settings)
    report = ClassificationReport.of(
        list(found.by_index.values()),
        dataset.class_names,
        absent_classes=known.absent,
        skipped=found.skipped,
        published=(
            published_metrics(info(published)) if isinstance(published, str) else published_by_name(published, "top1")
        ),
    )
    if confusion is not None and parallel.rank() == 0:
        with replacing(Path(confusion)) as temporary:
            draw_confusion(report.confusion, report.class_names).save(temporary, "PNG")
    return report


def _score(entry: Entry) -> ClassScore:
    """Check a line of a file."""
    score = ClassScore(int(entry["target"]), int(entry["prediction"]), bool(entry["in_top5"]), float(entry["loss"]))
    if min(score.target, score.prediction) < 0:
        raise ValueError(f"classes are counted from 0, given {score}")
    return score


SCORES = RecordFormat("classification progress", 1, ClassScore._asdict, _score, holds_ground_truth=True)
