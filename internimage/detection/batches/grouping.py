"""Which images make up a training batch: images of one orientation together, rare classes more often.

The order follows from the seed and the index of the epoch (or of the batch) alone, so that a resumed run sees the
batches that it would have seen.

Shape legend: N images, B images of a batch on one process.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from internimage.data.objects.dataset import DetectionDataset


def orientations(dataset: DetectionDataset) -> np.ndarray:
    """Return the (N,) int64 group of each image: 1 where it is wider than high, else 0.

    Raises:
        BadImage: a ValueError; the annotations do not give the size of an image, and its header cannot be read.
    """
    sizes = [dataset.size_hw(i) for i in range(len(dataset))]
    return np.array([width > height for height, width in sizes], dtype=np.int64)


def epoch_batches(
    groups: np.ndarray, *, batch_size: int, seed: int, epoch: int, rank: int = 0, world: int = 1
) -> np.ndarray:
    """Return the batches of one epoch for one process; no batch mixes groups.

    Each group is shuffled and filled up with its own first images until it makes full batches for every process; then
    the batches are shuffled and dealt out in `world` stretches.

    Args:
        groups: (N,) group of each image, see `orientations`.
        batch_size: B.
        seed: seed of the run, 0 or more.
        epoch: index of the epoch, from 0.
        rank: index of this process among those that train together.
        world: their count.

    Returns:
        (batches, B) int64 image indices; every process gets equally many batches.

    Example:
        >>> batches = epoch_batches(np.array([0, 1, 0, 1, 1]), batch_size=2, seed=0, epoch=0)
        >>> sorted(tuple(sorted(row)) for row in (batches % 2).tolist())
        [(0, 0), (0, 1), (1, 1)]
    """
    _check(groups, batch_size, rank, world)
    generator = torch.Generator().manual_seed(seed + epoch)
    parts: list[np.ndarray] = []
    for group in range(int(groups.max()) + 1):
        members = np.flatnonzero(groups == group)
        if len(members):
            order = members[torch.randperm(len(members), generator=generator).numpy()]
            step = batch_size * world
            parts.append(np.resize(order, math.ceil(len(members) / step) * step))
    batches = np.concatenate(parts).reshape(-1, batch_size)
    batches = batches[torch.randperm(len(batches), generator=generator).numpy()]
    per_process = len(batches) // world
    return batches[rank * per_process : (rank + 1) * per_process]


def endless_batches(
    groups: np.ndarray, *, batch_size: int, seed: int, rank: int = 0, world: int = 1, start: int = 0
) -> Iterator[np.ndarray]:
    """Give batches without end, for runs that count iterations; no batch mixes groups.

    The images are shuffled over and over; every process takes each `world`-th of them and puts a batch together as
    soon as one group has enough.

    Args:
        groups: (N,) group of each image, see `orientations`.
        batch_size: B.
        seed: seed of the run, 0 or more.
        rank: index of this process among those that train together.
        world: their count.
        start: index of the first batch wanted; those before it are not read.

    Yields:
        (B,) int64 image indices.
    """
    _check(groups, batch_size, rank, world)
    generator = torch.Generator().manual_seed(seed)

    def order() -> Iterator[int]:
        while True:
            yield from torch.randperm(len(groups), generator=generator).tolist()

    def batches() -> Iterator[np.ndarray]:
        waiting: dict[int, list[int]] = defaultdict(list)
        for image in itertools.islice(order(), rank, None, world):
            batch = waiting[int(groups[image])]
            batch.append(image)
            if len(batch) == batch_size:
                yield np.array(batch, dtype=np.int64)
                batch.clear()

    return itertools.islice(batches(), start, None)


def _check(groups: np.ndarray, batch_size: int, rank: int, world: int) -> None:
    if not len(groups) or groups.min() < 0:
        raise ValueError(f"expected the group of at least one image, numbered from 0, given {groups}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, given {batch_size}")
    if not 0 <= rank < world:
        raise ValueError(f"rank must lie in 0..{world - 1}, given {rank}")


def repeat_factors(labels: Iterable[Sequence[int] | np.ndarray], threshold: float) -> np.ndarray:
    """Return how often each image should be seen in an epoch so that rare classes are learned, too.

    A class that is in the fraction f of the images asks for max(1, sqrt(threshold / f)); an image follows the class
    that asks for most.

    Args:
        labels: classes in each of the N images.
        threshold: fraction of the images from which on a class is common enough, 0..1.

    Returns:
        (N,) float64, 1 or more.

    Source: LVIS, section 6.1, https://arxiv.org/abs/1908.03195.

    Example:
        >>> repeat_factors([[0], [0], [0], [0, 1]], threshold=1.0).round(3).tolist()
        [1.0, 1.0, 1.0, 2.0]
    """
    classes = [set(np.asarray(own).tolist()) for own in labels]
    counts = Counter(label for own in classes for label in own)
    wanted = {label: max(1.0, math.sqrt(threshold / (count / len(classes)))) for label, count in counts.items()}
    return np.array([max((wanted[label] for label in own), default=1.0) for own in classes])


def class_balanced(dataset: DetectionDataset, *, threshold: float = 1e-3) -> DetectionDataset:
    """Return the data set with images of rare classes repeated: `repeat_factors`, rounded up to whole images."""
    factors = repeat_factors((dataset.labels(i) for i in range(len(dataset))), threshold)
    return dataset.select(np.repeat(np.arange(len(dataset)), np.ceil(factors).astype(np.int64)))
