"""The one pass of every evaluation: each image of a data set once, to be cut and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

import torch.utils.data

from internimage import parallel
from internimage.data import ImageDataset, Sample, Unreadable, read_sample
from internimage.data.observation import Observation
from internimage.data.unreadable import UnreadableLimit
from internimage.evaluation.ground_truth import refuse_none_read
from internimage.evaluation.record_log import Record, RecordLog
from internimage.flow import AnyModel, ImageInput
from internimage.layers.evaluation_mode import evaluation_mode
from internimage.processors import bounded_workers

Target = TypeVar("Target")
Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class PassSettings:
    """How an evaluation goes over a data set; none of it changes a metric.

    Args:
        batch_size: images in one forward pass, at least 1.
        workers: reading processes; 0 reads in this one.
        max_unreadable: broken images that are left out and listed in the report.
        progress: called with (images done, images in all) after each batch.

    Raises:
        ValueError: the batch size is not positive.
    """

    batch_size: int = 1
    workers: int = 0
    max_unreadable: int = 50
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, given {self.batch_size}")


@dataclass(frozen=True)
class Item(Generic[Target]):
    """What belongs to one image of a batch besides its pixels."""

    index: int  # in the data set
    target: Target  # its ground truth
    name: str  # of its file
    observation: Observation | None = None  # when and where it was taken


@dataclass(frozen=True)
class Batch(Generic[Prepared, Target]):
    """Some images of a data set."""

    images: Prepared | None  # preprocessed; None when not one of them could be read
    items: list[Item[Target]]  # what belongs to each of them, in the same order
    unreadable: list[Unreadable]  # those that are missing from `images`


def _read_batch(
    dataset: ImageDataset[Any], preprocess: Callable[[Sequence[ImageInput]], Prepared], indices: Sequence[int]
) -> Batch[Prepared, Any]:
    """Read some images, in the worker process."""
    read = [(index, read_sample(dataset, index)) for index in indices]
    samples = [(index, sample) for index, sample in read if isinstance(sample, Sample)]
    images = preprocess([sample.image for _, sample in samples]) if samples else None
    items = [Item(index, sample.target, sample.name, sample.observation) for index, sample in samples]
    return Batch(images, items, [broken for _, broken in read if isinstance(broken, Unreadable)])


def batches(
    dataset: ImageDataset[Target],
    indices: Sequence[int],
    preprocess: Callable[[Sequence[ImageInput]], Prepared],
    settings: PassSettings,
) -> Iterator[Batch[Prepared, Target]]:
    """Yield the images of a data set with these indices exactly once, in this order.

    `preprocess` maps a list of images to a batch; it runs in the worker processes.
    """
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        cast("torch.utils.data.Dataset[int]", indices),  # any sequence will do
        batch_size=settings.batch_size,
        num_workers=bounded_workers(settings.workers),
        collate_fn=partial(_read_batch, dataset, preprocess),
        generator=torch.Generator(),  # else measuring a model would change the random numbers of its training
    )
    yield from loader


@dataclass(frozen=True)
class Outcome(Generic[Record]):
    """What was found in a whole data set.

    Args:
        by_index: the record of each image that could be read, in the order of the data set.
        skipped: (index, reason) of each of the others.
    """

    by_index: dict[int, Record]
    skipped: tuple[tuple[int, str], ...]


def evaluate_images(
    model: AnyModel,
    dataset: ImageDataset[Target],
    preprocess: Callable[[Sequence[ImageInput]], Prepared],
    predict: Callable[[Prepared, list[Item[Target]]], Sequence[Record | Unreadable]],
    *,
    log: RecordLog[Record],
    settings: PassSettings,
) -> Outcome[Record]:
    """Predict every image of a data set that the log does not hold yet.

    Processes that train together share the images out, batch by batch, and each gets what all of them found.

    Args:
        model: in evaluation mode while it predicts; its mode is restored afterwards.
        dataset: the images.
        preprocess: maps a list of images to a batch; runs in the worker processes.
        predict: returns the record of each image of a batch, or why it does not count.
        log: keeps the records.
        settings: how to go over the data set.

    Raises:
        ValueError: too many images, or all, cannot be read.
    """
    limit = UnreadableLimit(settings.max_unreadable)
    rest = [i for i in range(len(dataset)) if i not in log.records]
    own, done = _own_indices(rest, settings.batch_size), 0
    for batch in batches(dataset, own, preprocess, settings):
        done += len(batch.items) + len(batch.unreadable)
        with evaluation_mode(model):
            found = [] if batch.images is None else predict(batch.images, batch.items)
        unreadable = batch.unreadable
        for item, record in zip(batch.items, found, strict=True):
            if isinstance(record, Unreadable):
                unreadable.append(record)
            else:
                log.add(item.index, record)
        for broken in unreadable:
            log.add_unreadable(broken.index, broken.reason)
        limit.report(unreadable)
        if settings.progress is not None:  # the others are taken to be as far
            settings.progress(len(dataset) - len(rest) + round(done * len(rest) / len(own)), len(dataset))
    _exchange({i: log.records[i] for i in own if i in log.records}, log, limit)
    refuse_none_read(len(log.records), list(limit.reasons.values()))
    return Outcome({i: log.records[i] for i in sorted(log.records)}, tuple(sorted(limit.reasons.items())))


def _own_indices(indices: Sequence[int], batch_size: int) -> list[int]:
    """Return the indices whose images this process predicts, in the batches that a single process would make."""
    starts = range(0, len(indices), batch_size)[parallel.rank() :: parallel.world()]
    return [i for start in starts for i in indices[start : start + batch_size]]


def _exchange(own: Mapping[int, Record], log: RecordLog[Record], limit: UnreadableLimit) -> None:
    """Take over what the other processes have found, and count what none of them could read."""
    reasons = dict(limit.reasons)
    for records, unreadable in parallel.gathered((own, reasons)):
        log.take_over(records)
        limit.report([Unreadable(index, reason) for index, reason in unreadable.items()])
