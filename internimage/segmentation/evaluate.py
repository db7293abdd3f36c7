"""Metrics of a segmentor on a data set, image by image, to be cut and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from internimage.checkpoints.catalog import info
from internimage.data import ImageDataset
from internimage.data.dataset import read_as
from internimage.data.label_maps.open import open_segmentation_dataset
from internimage.evaluation.classes import KnownClasses, known_classes
from internimage.evaluation.confusion import STRIP_ROWS, PixelConfusion
from internimage.evaluation.ground_truth import warn_of_one_class
from internimage.evaluation.pixel_counts import PixelCounts, pixel_counts_format
from internimage.evaluation.record_log import record_log
from internimage.evaluation.run import Item, PassSettings, evaluate_images
from internimage.moved import published_by_name, renamed_keywords
from internimage.segmentation import SegmentationPreprocess, Segmentor
from internimage.segmentation.preprocess import prepare
from internimage.segmentation.report import ImageScore, SegmentationReport, published_metrics
from internimage.segmentation.tta import ScaleReader, SegmentationTTA, predict_views, published_scales
from internimage.types import Segmentation

RECORDS, OLDER_RECORDS = "progress.jsonl", "progress.json"


@renamed_keywords(looks="tta", answered="on_prediction", progress_file="folder", save_seconds=None)
def evaluate_segmentation(
    model: Segmentor,
    data: ImageDataset[np.ndarray] | str | PathLike[str],
    *,
    split: str = "val",
    tta: SegmentationTTA | bool = False,
    preprocess: SegmentationPreprocess | None = None,
    batch_size: int = 1,
    workers: int = 0,
    folder: str | PathLike[str] | None = None,
    max_unreadable: int = 50,
    published: Mapping[str, float] | str | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_prediction: Callable[[str, Segmentation], None] | None = None,
) -> SegmentationReport:
    """Measure a segmentor on every image of a data set, at the original size of each image.

    The model reads images with its own preprocessing (sliding windows where it has them), on its own device and in
    its own precision. Its classes are matched with those of the data by name; predictions of classes that the data
    lacks count as wrong, and against no class.

    Args:
        model: the segmentor; its mode is restored afterwards.
        data: a folder, see `open_segmentation_dataset`, or an opened data set.
        split: which part of a folder.
        tta: test-time augmentation: which views of each image are taken; True for those of the published metric, False
            for one view.
        preprocess: how images become pixels, None for the model's own.
        batch_size: images in one forward pass, at least 1; several views go image by image.
        workers: reading processes; 0 reads here.
        folder: where counted pixels are kept, so that a run that was cut goes on where it stopped; None keeps nothing.
        max_unreadable: broken images and masks that are left out and listed in the report.
        published: metrics of the original to stand beside the measured ones, or the name of a published checkpoint.
        progress: called with (images done, images in all) after each batch.
        on_prediction: called with the name of each image and its prediction, for example to write it; of processes that
            share an evaluation, each calls it for its own images.

    Raises:
        ValueError: the data has classes that the model does not know, no pixel has a label, more than `max_unreadable`
            images (or all) are broken, or `folder` holds the pixels of another model or another data set. Images that
            were replaced since, or their masks, are looked at again, which the log says.
        FileNotFoundError: the folder lacks the data.
        BlockingIOError: another process works in `folder`.
    """
    entry = info(published) if isinstance(published, str) else None
    views = published_scales(entry) if tta is True else tta or None
    settings = PassSettings(batch_size if views is None else min(batch_size, 1), workers, max_unreadable, progress)
    dataset = open_segmentation_dataset(data, split=split) if isinstance(data, str | PathLike) else data
    known = known_classes(model.config.class_names, model.config.num_classes, dataset.class_names)
    config = preprocess or model.config.preprocess
    dataset = read_as(dataset, config.reading)

    def predict(images: Any, items: list[Item[np.ndarray]]) -> list[PixelCounts]:
        results = (
            model.predict_batch(images, preprocess=config)
            if views is None
            else [predict_views(model, sizes, views, config) for sizes in images]
        )
        return [_counted(result, item, known, on_prediction) for result, item in zip(results, items, strict=True)]

    form = pixel_counts_format(len(dataset.class_names))
    with record_log(_records_file(folder), form, model, repr((config, views)), dataset) as log:
        read: Callable[[Sequence[Any]], Any] = (
            partial(prepare, config=config) if views is None else ScaleReader(config, views)
        )
        found = evaluate_images(model, dataset, read, predict, log=log, settings=settings)
    total, scores = PixelConfusion.empty(len(dataset.class_names)), []
    for index, counts in found.by_index.items():
        own = counts.confusion(total.num_classes)
        total += own
        scores.append(ImageScore(index, counts.name, own.miou, own.aacc))
    if not total.counts.any():
        raise ValueError(f"there is nothing to measure: the masks of {len(dataset)} images hold no pixel with a label")
    warn_of_one_class(total.true_pixels.tolist(), dataset.class_names)
    return SegmentationReport(
        total,
        dataset.class_names,
        tuple(scores),
        found.skipped,
        published_metrics(info(published), tta=views is not None)
        if isinstance(published, str)
        else published_by_name(published, "mIoU"),
        views,
        known.absent,
    )


def _records_file(folder: str | PathLike[str] | None) -> Path | None:
    """Return the file in a folder; earlier releases were given the file itself."""
    if folder is None or Path(folder).suffix.startswith(".json"):
        return None if folder is None else Path(folder)
    older = Path(folder) / OLDER_RECORDS
    if older.exists():
        raise ValueError(
            f"{older} was begun by another release; choose another folder, or remove the file to start afresh"
        )
    return Path(folder) / RECORDS


def _counted(
    result: Segmentation,
    item: Item[np.ndarray],
    known: KnownClasses,
    on_prediction: Callable[[str, Segmentation], None] | None,
) -> PixelCounts:
    """Compare one prediction with its ground truth."""
    if on_prediction is not None:
        on_prediction(item.name, result)
    label_map = in_data_order(result.label_map, known)
    return PixelCounts.of(item.name, torch.from_numpy(item.target), label_map, len(known.outputs))


def in_data_order(label_map: Tensor, known: KnownClasses) -> Tensor:
    """Return a model's (H, W) label map in the class indices of the data set; classes that it lacks become one more."""
    if known.is_identity:
        return label_map
    own = known.data_classes
    table = torch.from_numpy(np.where(own < 0, len(known.outputs), own).astype(np.int16))
    return torch.cat([table[rows.long()] for rows in label_map.split(STRIP_ROWS)])
