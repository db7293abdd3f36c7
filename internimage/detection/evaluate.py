"""Metrics of a detector on a data set, image by image, to be cut and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from internimage import parallel
from internimage.checkpoints.catalog import info
from internimage.data import Sample, Unreadable
from internimage.data.dataset import read_as
from internimage.data.images.read import read_image
from internimage.data.objects.census import count_targets
from internimage.data.objects.dataset import DetectionDataset, size_mismatch
from internimage.data.objects.sizes import check_sizes
from internimage.data.parts import Part
from internimage.data.readers.coco import open_coco
from internimage.data.readers.open_objects import open_detection_dataset
from internimage.detection import RCNN, Detector
from internimage.detection.preprocess import prepare
from internimage.detection.report import DetectionReport, published_metrics
from internimage.detection.tta import DetectionTTA, ViewReader, merge_views, usual_scales
from internimage.evaluation.classes import KnownClasses, known_classes
from internimage.evaluation.coco import Kind
from internimage.evaluation.ground_truth import refuse_no_targets
from internimage.evaluation.object_classes import ObjectClasses
from internimage.evaluation.object_metrics import METRICS, Metric, measure
from internimage.evaluation.predictions import PREDICTIONS, FoundObjects, write_coco_results
from internimage.evaluation.record_log import record_log
from internimage.evaluation.run import Item, Outcome, PassSettings, evaluate_images
from internimage.files import remove_leftovers
from internimage.moved import renamed_keywords
from internimage.options import Merging
from internimage.types import Detections

RECORDS, RESULTS = "predictions.jsonl", "results.json"


@renamed_keywords(looks="tta", pictures="images")
def evaluate_detection(
    model: Detector,
    data: DetectionDataset | str | PathLike[str],
    *,
    split: Part = "val",
    images: str | PathLike[str] | None = None,
    metric: Metric = "coco",
    batch_size: int = 1,
    workers: int = 0,
    tta: DetectionTTA | bool = False,
    merge: Merging | None = None,
    folder: str | PathLike[str] | None = None,
    max_unreadable: int = 50,
    published: Mapping[str, float] | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DetectionReport:
    """Measure a detector on every image of a data set.

    The model reads images with its own preprocessing, on its own device and in its own precision. Its classes are
    matched with those of the data by name; predictions of classes that the data lacks are left out. With `folder`, what
    is found is kept there image by image, so that a run that was cut goes on where it stopped, and written as a
    COCO results file at the end.

    Args:
        model: the detector; its mode is restored afterwards.
        data: a folder, see `data.readers.open_objects.open_detection_dataset`, an annotations file in the COCO form,
            or an opened data set.
        split: which part of a folder.
        images: folder with the images of an annotations file; None for the folder of the file.
        metric: "coco" and "lvis" measure boxes, and masks where both sides have them; "voc2007", "voc2012",
            "openimages" and "crowdhuman" measure boxes.
        batch_size: images in one forward pass, at least 1.
        workers: reading processes; 0 reads here.
        tta: test-time augmentation: which views of each image are taken; True for `usual_scales`, False for one view.
        merge: how the views are merged, None for `tta.method`.
        folder: where predictions are kept, None to keep none.
        max_unreadable: broken images that are left out and listed in the report.
        published: metrics of the original to stand beside the measured ones, or the name of a published checkpoint.
        progress: called with (images done, images in all) after each batch.

    Raises:
        ValueError: the data has classes that the model does not know, the metric does not fit the data, there is
            nothing to be found in the data, more than `max_unreadable` images (or all) are broken, `merge` is given
            without `tta`, or `folder` holds predictions of another model or another data set. Images that were replaced
            since are looked at again, which the log says.
        BlockingIOError: another process works in `folder`.
        FileNotFoundError: there are no annotations.
        MissingExtra: a package that the metric needs is not installed.
    """
    settings = PassSettings(batch_size, workers, max_unreadable, progress)
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, given {metric!r}")
    views = _views(model, tta, merge)
    opened = _open(data, split, images) if isinstance(data, str | PathLike) else data
    dataset = read_as(opened, model.config.preprocess.reading)
    classes = ObjectClasses.of(dataset)
    known = known_classes(model.config.class_names, model.config.num_classes, classes.names)
    refuse_no_targets(count_targets(dataset), dataset.name)
    found = _find(model, dataset, known, views, folder, settings)
    targets = [dataset.annotation(i) for i in found.by_index]
    predictions = list(found.by_index.values())
    results = None if folder is None else Path(folder) / RESULTS
    if results is not None and parallel.rank() == 0:
        named = zip((target.image_id for target in targets), predictions, strict=True)
        write_coco_results(results, list(named), classes.category_ids)
    has_masks = dataset.has_masks and isinstance(model, RCNN) and bool(model.mask_heads)
    kinds: list[Kind] = ["box", "mask"] if has_masks else ["box"]
    return DetectionReport(
        metric,
        measure(metric, targets, predictions, classes, kinds=kinds),
        len(predictions),
        found.skipped,
        published_metrics(info(published), metric, tta=views is not None, lvis_minival="minival" in dataset.name)
        if isinstance(published, str)
        else published or {},
        results,
        known.absent,
    )


def _views(model: Detector, tta: DetectionTTA | bool, merge: Merging | None) -> DetectionTTA | None:
    """Return which views are taken, None for one."""
    views = usual_scales(model) if tta is True else tta or None
    if merge is None:
        return views
    if views is None:
        raise ValueError(f"merge={merge!r} is for several views of each image; give tta=True, too")
    return replace(views, method=merge)


def _find(
    model: Detector,
    dataset: DetectionDataset,
    known: KnownClasses,
    tta: DetectionTTA | None,
    folder: str | PathLike[str] | None,
    settings: PassSettings,
) -> Outcome[FoundObjects]:
    """Find the objects of every image, with the classes of the data set."""
    config, data_classes = model.config.preprocess, known.data_classes

    def predict(images: Any, items: list[Item[None]]) -> list[FoundObjects | Unreadable]:
        found = model.predict_batch(images) if tta is None else merge_views(model, images, tta)
        return [_checked(result, dataset, item.index, data_classes) for result, item in zip(found, items, strict=True)]

    path = None if folder is None else Path(folder) / RECORDS
    with record_log(path, PREDICTIONS, model, str(tta), dataset) as log:
        if path is not None and parallel.rank() == 0:
            remove_leftovers(path.parent, (RESULTS,))
        read: Callable[[Sequence[Any]], Any] = (
            partial(prepare, config=config) if tta is None else ViewReader(config, tta)
        )
        return evaluate_images(model, ImageFiles(dataset), read, predict, log=log, settings=settings)


def _checked(
    result: Detections, dataset: DetectionDataset, index: int, data_classes: np.ndarray
) -> FoundObjects | Unreadable:
    """Take over a prediction, unless the image is not the one that was annotated."""
    size_hw = dataset.size_hw(index)
    if result.original_hw != size_hw:
        return Unreadable(index, size_mismatch(dataset.file(index), result.original_hw, size_hw))
    return FoundObjects.of(result, data_classes)


class ImageFiles:
    """The images of a data set without their annotations, to be read in worker processes."""

    def __init__(self, data: DetectionDataset) -> None:
        self.class_names = data.class_names
        self.files = [data.file(i) for i in range(len(data))]
        self.reading = data.reading

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample[None]:
        return Sample(read_image(self.files[index], self.reading), None, str(self.files[index]))


def _open(data: str | PathLike[str], split: Part, images: str | PathLike[str] | None) -> DetectionDataset:
    path = Path(data)
    if path.suffix.lower() == ".json":
        dataset = open_coco(path, path.parent if images is None else images)
        check_sizes(dataset)
        return dataset
    if images is not None:
        raise ValueError(f"images belongs to an annotations file; {path} is a folder, whose layout names them")
    return open_detection_dataset(path, split)
