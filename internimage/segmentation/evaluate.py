"""Figures of a segmentor on a data set, image by image, to be cut and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from internimage.data import ImageDataset, Sample
from internimage.data.dataset import read_as
from internimage.data.label_maps.open import open_segmentation_dataset
from internimage.evaluation.batches import Batch, Prepared, batches
from internimage.evaluation.classes import KnownClasses, known_classes
from internimage.evaluation.confusion import STRIP_ROWS, PixelConfusion
from internimage.evaluation.ground_truth import refuse_none_read, warn_of_one_class
from internimage.evaluation.identity import model_fingerprint
from internimage.layers.evaluation_mode import evaluation_mode
from internimage.segmentation import PreprocessConfig, Segmentor
from internimage.segmentation.preprocess import prepare
from internimage.segmentation.progress_file import Progress, open_progress
from internimage.segmentation.report import ImageScore, SegmentationReport
from internimage.segmentation.tta import SINGLE_SCALE, Looking, MultiScale, answer_looks
from internimage.types import Images, Segmentation

NamedTruth = tuple[str, np.ndarray]


def evaluate_segmentation(
    model: Segmentor,
    data: ImageDataset[np.ndarray] | str | PathLike[str],
    *,
    split: str = "val",
    looks: MultiScale = SINGLE_SCALE,
    preprocess: PreprocessConfig | None = None,
    batch_size: int = 1,
    workers: int = 0,
    max_unreadable: int = 50,
    published: float | None = None,
    progress_file: str | PathLike[str] | None = None,
    save_seconds: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
    answered: Callable[[str, Segmentation], None] | None = None,
) -> SegmentationReport:
    """Measure a segmentor on every image of a data set, at the original size of each image.

    The model reads images with its own preprocessing (sliding windows where it has them), on its own device and in
    its own precision. Its classes are matched with those of the data by name; answers of classes that the data lacks
    count as wrong, and against no class.

    Args:
        model: the segmentor; its mode is restored afterward.
        data: a folder, see `open_segmentation_dataset`, or an opened data set.
        split: which part of a folder.
        looks: sizes and mirrored copies of each image; one look at its input size by default.
        preprocess: how images become pixels, None for the model's own.
        batch_size: images in one forward pass, at least 1; several looks go image by image.
        workers: reading processes; 0 reads here.
        max_unreadable: broken images and masks that are left out and listed in the report.
        published: mIoU of the original, 0..1, see `published_miou`, to stand beside the measured one.
        progress_file: file that keeps what was counted, so that a run that was cut goes on where it stopped; None keeps
            nothing.
        save_seconds: time between two writes of that file.
        progress: called with (images done, images in all) after each batch.
        answered: called with the name of each image and its answer, for example to write it.

    Raises:
        ValueError: the data has classes that the model does not know, no pixel has a label, more than `max_unreadable`
            images (or all) are broken, or the progress file belongs to something else. Where only
            images or masks have changed since it was written, everything is counted anew, which the log says.
        FileNotFoundError: the folder lacks the data.
        BlockingIOError: another process works with the progress file.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, given {batch_size}")
    dataset = open_segmentation_dataset(data, split=split) if isinstance(data, str | PathLike) else data
    known = known_classes(model.config.class_names, model.config.num_classes, dataset.class_names)
    config = preprocess or model.config.preprocess
    dataset = read_as(dataset, config.reading)
    place = None if progress_file is None else Path(progress_file)
    identity = {} if place is None else _identity(model, config, looks)
    with open_progress(place, identity, dataset, save_seconds=save_seconds) as file:
        state = file.load(len(dataset.class_names), len(dataset))
        try:
            for answers in _answers(model, _Rest(dataset, state.done), config, looks, batch_size, workers):
                for entry in answers:
                    _count(state, entry, known, answered)
                if len(state.skipped) > max_unreadable:
                    raise ValueError(_too_many(state.skipped, max_unreadable))
                file.save(state)
                if progress is not None:
                    progress(state.done, len(dataset))
        finally:
            file.save(state, is_due=state.done > 0)
    refuse_none_read(state.done - len(state.skipped), [reason for _, reason in state.skipped])
    if not state.confusion.counts.any():
        raise ValueError(f"there is nothing to measure: the masks of {state.done} images hold no pixel with a label")
    warn_of_one_class(state.confusion.counts.sum(dim=1).tolist(), dataset.class_names)
    return SegmentationReport(
        state.confusion,
        dataset.class_names,
        tuple(state.images),
        tuple(state.skipped),
        published,
        looks,
        known.absent,
    )


def in_data_order(label_map: Tensor, known: KnownClasses) -> Tensor:
    """Return a label map of the model in the class numbers of the data set; classes that it lacks become one more.

    Args:
        label_map: (H, W) class of the model for every pixel.
        known: the classes of the data set.
    """
    if known.is_identity:
        return label_map
    number = len(known.outputs)
    places = torch.from_numpy(np.where(known.places < 0, number, known.places).astype(np.int16))
    return torch.cat([places[rows.long()] for rows in label_map.split(STRIP_ROWS)])


class _Rest:
    """The samples from number `start` on; the target of each is its name and its label map."""

    def __init__(self, dataset: ImageDataset[np.ndarray], start: int) -> None:
        self.dataset, self.start = dataset, start

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.dataset.class_names

    def __len__(self) -> int:
        return len(self.dataset) - self.start

    def __getitem__(self, index: int) -> Sample[NamedTruth]:
        sample = self.dataset[self.start + index]
        return Sample(sample.image, (sample.name, sample.target), sample.name)


def _answers(
    model: Segmentor, rest: _Rest, config: PreprocessConfig, looks: MultiScale, batch_size: int, workers: int
) -> Iterator[list[tuple[NamedTruth, Segmentation] | str]]:
    """Give, batch by batch, the truth and the answer of each image, or why it cannot be read."""
    if looks == SINGLE_SCALE:
        once = batches(rest, partial(prepare, config=config), batch_size=batch_size, workers=workers)
        return _in_order(model, once, partial(model.predict_batch, preprocess=config))

    def answer(images: list[tuple[Images, ...]]) -> list[Segmentation]:
        return [answer_looks(model, sizes, looks, config) for sizes in images]

    return _in_order(model, batches(rest, Looking(config, looks), batch_size=1, workers=workers), answer)


def _in_order(
    model: Segmentor, reader: Iterator[Batch[Prepared]], answer: Callable[[Prepared], list[Segmentation]]
) -> Iterator[list[tuple[NamedTruth, Segmentation] | str]]:
    """Answer each batch and put its broken images back between the others."""
    start = 0
    for batch in reader:
        with evaluation_mode(model):
            results = [] if batch.images is None else answer(batch.images)
        broken = {entry.index: entry.reason for entry in batch.unreadable}
        pairs = iter(zip(batch.targets, results, strict=True))
        stop = start + len(batch.targets) + len(batch.unreadable)
        yield [broken[i] if i in broken else next(pairs) for i in range(start, stop)]
        start = stop


def _count(
    state: Progress,
    entry: tuple[NamedTruth, Segmentation] | str,
    known: KnownClasses,
    answered: Callable[[str, Segmentation], None] | None,
) -> None:
    """Add one image."""
    if isinstance(entry, str):
        state.skipped.append((state.done, entry))
    else:
        (name, truth), answer = entry
        if answered is not None:
            answered(name, answer)
        label_map = in_data_order(answer.label_map, known)
        own = PixelConfusion.of(torch.from_numpy(truth), label_map, state.confusion.num_classes)
        state.confusion += own
        state.images.append(ImageScore(state.done, name, own.miou, own.aacc))
    state.done += 1


def _identity(model: Segmentor, config: PreprocessConfig, looks: MultiScale) -> dict[str, str]:
    return {"model": model_fingerprint(model), "way of looking": repr((config, looks))}


def _too_many(skipped: Sequence[tuple[int, str]], limit: int) -> str:
    reasons = "\n".join(f"  {reason}" for _, reason in skipped[:10])
    return f"more than {limit} images cannot be read (max_unreadable); the first ones:\n{reasons}"
