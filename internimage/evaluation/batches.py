"""A whole data set in preprocessed batches, each image once, broken ones reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch.utils.data

from internimage.data import ImageDataset, Sample, Unreadable, read_sample
from internimage.flow import ImageInput
from internimage.processors import bounded_workers

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Batch(Generic[Prepared]):
    """Some images of a data set.

    Args:
        images: the preprocessed images, None when not one of them could be read.
        targets: their targets, in the same order.
        unreadable: the images that are missing from `images`.
    """

    images: Prepared | None
    targets: list[Any]
    unreadable: list[Unreadable]


class _Reading(torch.utils.data.Dataset):
    """Reads samples in the worker processes; a broken image arrives as `Unreadable`."""

    def __init__(self, dataset: ImageDataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample[Any] | Unreadable:
        return read_sample(self.dataset, index)


class _Collating(Generic[Prepared]):
    """Turns what was read into a batch, in the worker process."""

    def __init__(self, preprocess: Callable[[Sequence[ImageInput]], Prepared]) -> None:
        self.preprocess = preprocess

    def __call__(self, entries: list[Sample[Any] | Unreadable]) -> Batch[Prepared]:
        samples = [entry for entry in entries if isinstance(entry, Sample)]
        images = self.preprocess([sample.image for sample in samples]) if samples else None
        unreadable = [entry for entry in entries if isinstance(entry, Unreadable)]
        return Batch(images, [sample.target for sample in samples], unreadable)


def batches(
    dataset: ImageDataset[Any],
    preprocess: Callable[[Sequence[ImageInput]], Prepared],
    *,
    batch_size: int,
    workers: int = 0,
) -> Iterator[Batch[Prepared]]:
    """Yield every image of a data set exactly once, in order.

    Args:
        dataset: what is read.
        preprocess: maps a list of images to a batch; runs in the worker processes.
        batch_size: images of one batch, at least 1.
        workers: reading processes; 0 reads here.
    """
    loader = torch.utils.data.DataLoader(
        _Reading(dataset),
        batch_size=batch_size,
        num_workers=bounded_workers(workers),
        collate_fn=_Collating(preprocess),
        generator=torch.Generator(),  # else measuring a model would change the random numbers of its training
    )
    yield from loader
