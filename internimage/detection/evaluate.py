"""Figures of a detector on a data set, image by image, to be cut and taken up again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from internimage.data import Sample
from internimage.data.dataset import read_as
from internimage.data.fingerprint import DataFingerprint
from internimage.data.images.read import read_image
from internimage.data.objects.census import count_truth
from internimage.data.objects.dataset import DetectionDataset, size_mismatch
from internimage.data.objects.sizes import check_sizes
from internimage.data.parts import Part
from internimage.data.readers.coco import open_coco
from internimage.data.readers.open_objects import open_detection_dataset
from internimage.detection import RCNN, Detector
from internimage.detection.preprocess import prepare
from internimage.detection.report import DetectionReport
from internimage.detection.tta import Looking, MultiScale, merge_views
from internimage.evaluation.batches import Batch, batches
from internimage.evaluation.classes import known_classes
from internimage.evaluation.coco import Kind
from internimage.evaluation.ground_truth import refuse_no_truth, refuse_none_read
from internimage.evaluation.identity import announce, model_fingerprint
from internimage.evaluation.object_classes import TruthClasses
from internimage.evaluation.object_metrics import METRICS, Metric, measure
from internimage.evaluation.predictions import FoundObjects, PredictionLog, write_coco_results
from internimage.files import locked, remove_leftovers
from internimage.layers.evaluation_mode import evaluation_mode
from internimage.types import Detections

PREDICTIONS, RESULTS = "predictions.jsonl", "results.json"


def evaluate_detection(
    model: Detector,
    data: DetectionDataset | str | PathLike[str],
    *,
    split: Part = "val",
    images: str | PathLike[str] | None = None,
    metric: Metric = "coco",
    batch_size: int = 1,
    workers: int = 0,
    looks: MultiScale | None = None,
    folder: str | PathLike[str] | None = None,
    max_unreadable: int = 50,
    published: Mapping[str, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DetectionReport:
    """Measure a detector on every image of a data set.

    The model reads images with its own preprocessing, on its own device and in its own precision. Its classes are
    matched with those of the data by name; answers of classes that the data lacks are left out. With `folder`, what is
    found is kept there image by image, so that a run that was cut goes on where it stopped, and written as a
    COCO results file at the end.

    Args:
        model: the detector; its mode is restored afterward.
        data: a folder, see `data.readers.open_objects.open_detection_dataset`, an annotations file in the COCO form,
            or an opened data set.
        split: which part of a folder.
        images: folder with the images of an annotations file; None for the folder of the file.
        metric: "coco" and "lvis" measure boxes, and masks where both sides have them; "voc2007", "voc2012",
            "openimages" and "crowdhuman" measure boxes.
        batch_size: images in one forward pass, at least 1.
        workers: reading processes; 0 reads here.
        looks: several looks at each image, merged; None looks once.
        folder: where predictions are kept, None to keep none.
        max_unreadable: broken images that are left out and listed in the report.
        published: figures of the original, see `published_figures`, to stand beside the measured ones.
        progress: called with (images done, images in all) after each batch.

    Raises:
        ValueError: the data has classes that the model does not know, the metric does not fit the data, there is
            nothing to be found in the data, more than `max_unreadable` images (or all) are broken, or `folder` holds
            predictions of another model or another data set. Images that were replaced since are
            looked at again, which the log says.
        BlockingIOError: another process works in `folder`.
        FileNotFoundError: there are no annotations.
        MissingExtra: a package that the metric needs is not installed.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, given {batch_size}")
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, given {metric!r}")
    opened = _open(data, split, images) if isinstance(data, str | PathLike) else data
    dataset = read_as(opened, model.config.preprocess.reading)
    classes = TruthClasses.of(dataset)
    known = known_classes(model.config.class_names, model.config.num_classes, classes.names)
    refuse_no_truth(count_truth(dataset), dataset.name)
    place = None if folder is None else Path(folder)
    with _log(place, model, dataset, looks) as log:
        rest = [i for i in range(len(dataset)) if i not in log]
        files = ImageFiles(dataset, rest)
        for answers in _answers(model, files, looks, batch_size=batch_size, workers=workers):
            for position, result in answers:
                log[rest[position]] = _checked(result, dataset, rest[position], known.places)
            _refuse_too_many(log.errors, max_unreadable)
            if progress is not None:
                progress(len(log), len(dataset))
        _refuse_too_many(log.errors, max_unreadable)
        done = {i: log[i] for i in range(len(dataset))}
    read = {i: found for i, found in done.items() if isinstance(found, FoundObjects)}
    refuse_none_read(len(read), [found for found in done.values() if isinstance(found, str)])
    truth = [dataset.annotation(i) for i in read]
    if place is not None:
        named = [(true.image_id, found) for true, found in zip(truth, read.values(), strict=True)]
        write_coco_results(place / RESULTS, named, classes.category_ids)
    kinds: list[Kind] = ["box"]
    if dataset.has_masks and isinstance(model, RCNN) and model.mask_heads:
        kinds.append("mask")
    return DetectionReport(
        metric,
        measure(metric, truth, list(read.values()), classes, kinds=kinds),
        len(read),
        tuple((i, found) for i, found in done.items() if isinstance(found, str)),
        published or {},
        None if place is None else place / RESULTS,
        known.absent,
    )


def _answers(
    model: Detector, images: ImageFiles, looks: MultiScale | None, *, batch_size: int, workers: int
) -> Iterator[list[tuple[int, Detections | str]]]:
    """Give, batch by batch, the number of each image and what was found in it, or why it cannot be read."""
    read: Callable[[Sequence[Any]], Any] = (
        partial(prepare, config=model.config.preprocess) if looks is None else Looking(model.config.preprocess, looks)
    )
    start = 0
    for batch in batches(images, read, batch_size=batch_size, workers=workers):
        size = len(batch.targets) + len(batch.unreadable)
        with evaluation_mode(model):
            found = _found(model, batch, looks)
        broken = {entry.index: entry.reason for entry in batch.unreadable}
        results = iter(found)
        yield [(i, broken[i] if i in broken else next(results)) for i in range(start, start + size)]
        start += size


def _found(model: Detector, batch: Batch, looks: MultiScale | None) -> list[Detections]:
    if batch.images is None:
        return []
    prepared: Any = batch.images
    return model.predict_batch(prepared) if looks is None else merge_views(model, prepared, looks)


class ImageFiles:
    """Some images of a data set without their annotations, to be read in worker processes.

    Args:
        data: the data set.
        indices: which of its images.
    """

    def __init__(self, data: DetectionDataset, indices: Sequence[int]) -> None:
        self.class_names = data.class_names
        self.files = [data.file(i) for i in indices]
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


class _Log(dict[int, FoundObjects | str]):
    """What is known of each image; kept in a file where there is one."""

    def __init__(self, file: PredictionLog | None) -> None:
        super().__init__({} if file is None else file.done)
        self.file = file
        self.errors = [found for found in self.values() if isinstance(found, str)]

    def __setitem__(self, index: int, found: FoundObjects | str) -> None:
        super().__setitem__(index, found)
        if isinstance(found, str):
            self.errors.append(found)
        if self.file is not None:
            self.file.add(index, found)


@contextmanager
def _log(folder: Path | None, model: Detector, dataset: DetectionDataset, looks: MultiScale | None) -> Iterator[_Log]:
    if folder is None:
        yield _Log(None)
        return
    identity = {"model": model_fingerprint(model), "way of looking": str(looks)}
    path = folder / PREDICTIONS
    with locked(folder / ".lock"):
        remove_leftovers(folder, (PREDICTIONS, RESULTS))
        file = PredictionLog(path, identity, DataFingerprint.of(dataset), older_data=_older_data_fingerprint(dataset))
        announce(path, len(file.done), len(dataset))
        try:
            yield _Log(file)
        finally:
            file.close()


def _older_data_fingerprint(dataset: DetectionDataset) -> str:
    """Return the text that older releases kept of a data set: of its classes, and of the names of its images."""
    digest = hashlib.sha256(repr((dataset.class_names, dataset.category_ids, len(dataset))).encode())
    for i in range(len(dataset)):
        digest.update(f"{dataset.file(i).name}\n".encode())
    return digest.hexdigest()


def _checked(
    result: Detections | str, dataset: DetectionDataset, index: int, own_classes: np.ndarray
) -> FoundObjects | str:
    """Take over an answer, unless the image is not the one that was annotated."""
    if isinstance(result, str):
        return result
    size_hw = dataset.size_hw(index)
    if result.original_hw != size_hw:
        return size_mismatch(dataset.file(index), result.original_hw, size_hw)
    return FoundObjects.of(result, own_classes)


def _refuse_too_many(reasons: Sequence[str], limit: int) -> None:
    if len(reasons) > limit:
        listed = "\n".join(f"  {reason}" for reason in reasons[:10])
        raise ValueError(f"more than {limit} images cannot be read (max_unreadable); the first ones:\n{listed}")
