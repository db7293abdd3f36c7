"""Training batches in an order that follows from the seed alone: a resumed run sees what the first one would have.

Shape legend: N images of a batch, H W size of the batch, h w size of an image, in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.utils.data
from numpy.random import RandomState
from torch import Tensor

from internimage import parallel
from internimage.data.dataset import ImageDataset, Unreadable, read_next
from internimage.data.images.normalize import IMAGENET_MEAN, IMAGENET_STD, normalize
from internimage.data.images.raster import pixels_of
from internimage.data.label_maps.label_map import IGNORED
from internimage.data.randomness import derived_seed
from internimage.processors import bounded_workers
from internimage.segmentation.batches.augment import Augmentation, Augmented
from internimage.segmentation.batches.photometric import opencv
from internimage.types import Images

# What a seed is for; keeps the streams of random numbers of one run apart.
_ORDER, _AUGMENT = 1, 2


@dataclass(frozen=True)
class SegmentationBatch:
    """One training batch, padded at the right and the bottom."""

    images: Images  # normalized, zero in the padding
    targets: Tensor  # (N, H, W) uint8 class of every pixel, 255 where there is none and in the padding
    unreadable: tuple[Unreadable, ...] = ()  # images that were replaced by the next one that can be read


class SegmentationBatches:
    """A training set, shuffled anew in each epoch, varied and cut into full batches; the remainder is left out.

    Args:
        dataset: images with label maps.
        augmentation: how an image is varied; its crop is the size of the batches.
        batch_size: N.
        seed: order and variations follow from it and from the index of the epoch.
        workers: reading processes; 0 reads here.
        mean: mean of each channel of pixels scaled to 0..1, as the model has it.
        std: standard deviation of each channel of pixels scaled to 0..1.

    Raises:
        ValueError: the training set does not fill one batch.
        MissingExtra: colors are to be changed, and OpenCV is not installed.
    """

    def __init__(
        self,
        dataset: ImageDataset[np.ndarray],
        augmentation: Augmentation,
        *,
        batch_size: int,
        seed: int = 0,
        workers: int = 0,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, given {batch_size}")
        if augmentation.photometric is not None and len(mean) == 3:
            opencv()  # what is missing shows here, not in a reading process
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self.num_samples, self._whole_batch = len(dataset), batch_size * parallel.world()
        self.batches_per_epoch = self.num_samples // self._whole_batch
        if self.batches_per_epoch == 0:
            raise ValueError(
                f"{self.num_samples} training images do not fill a batch of {parallel.world()} x {batch_size}; lower "
                "batch_size"
            )
        self._varied = _Varied(dataset, augmentation, seed)
        self._collate = partial(_collated, size_hw=augmentation.crop_hw, mean=mean, std=std)

    def order(self, epoch: int) -> np.ndarray:
        """Return the (batches, N) sample indices of one epoch for this process."""
        shuffled = np.random.default_rng(derived_seed(self.seed, _ORDER, epoch)).permutation(self.num_samples)
        whole = shuffled[: self.batches_per_epoch * self._whole_batch].reshape(-1, self._whole_batch)
        return whole[:, parallel.own_rows(self.batch_size)]

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[SegmentationBatch]:
        """Yield the batches of one epoch from index `start` on."""
        keys = [[(epoch, int(index)) for index in indices] for indices in self.order(epoch)[start:]]
        yield from torch.utils.data.DataLoader(
            self._varied,
            batch_sampler=keys,
            num_workers=bounded_workers(self.workers),
            collate_fn=self._collate,
            generator=torch.Generator(),  # else each start would draw from the generator that layers use
        )


class _Varied(torch.utils.data.Dataset):
    """Reads and varies image `index` with draws that depend on seed, epoch and index alone."""

    def __init__(self, dataset: ImageDataset[np.ndarray], augmentation: Augmentation, seed: int) -> None:
        self.dataset, self.augmentation, self.seed = dataset, augmentation, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Augmented, list[Unreadable]]:
        epoch, index = key
        sample, unreadable = read_next(self.dataset, index)
        random = RandomState(derived_seed(self.seed, _AUGMENT, epoch, index))
        return self.augmentation(pixels_of(sample.image), sample.target, random), unreadable


def _collated(entries: list[tuple[Augmented, list[Unreadable]]], **options: Any) -> SegmentationBatch:
    """Turn varied images into a batch, in the worker process."""
    images, targets = collate([entry for entry, _ in entries], **options)
    return SegmentationBatch(images, targets, tuple(broken for _, some in entries for broken in some))


def collate(
    samples: Sequence[Augmented],
    *,
    size_hw: tuple[int, int] | None = None,
    multiple: int = 32,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> tuple[Images, Tensor]:
    """Normalize images, then pad them and their label maps at the right and the bottom to one size.

    Args:
        samples: at least one.
        size_hw: (height, width) of the batch in pixels; None for the largest sides, rounded up.
        multiple: what sides are rounded up to without `size_hw`.
        mean: mean of each channel of pixels scaled to 0..1.
        std: standard deviation of each channel of pixels scaled to 0..1.

    Returns:
        The batch and its (N, H, W) uint8 targets, as `Segmentor.loss` takes them; padding is 0 in the normalized
        images and 255 in the targets.

    Raises:
        ValueError: an image is larger than `size_hw`.
    """
    sizes = [sample.label_map.shape for sample in samples]
    largest = (max(h for h, _ in sizes), max(w for _, w in sizes))
    height, width = size_hw or (-(-largest[0] // multiple) * multiple, -(-largest[1] // multiple) * multiple)
    if largest[0] > height or largest[1] > width:
        raise ValueError(f"images of up to {largest} do not fit a batch of {(height, width)}; crop them")
    pixels = torch.zeros(len(samples), height, width, samples[0].image.shape[2])
    targets = torch.full((len(samples), height, width), IGNORED, dtype=torch.uint8)
    for i, (sample, (h, w)) in enumerate(zip(samples, sizes, strict=True)):
        pixels[i, :h, :w] = normalize(torch.from_numpy(sample.image), mean=mean, std=std)
        targets[i, :h, :w] = torch.from_numpy(sample.label_map)
    valid_hw = torch.tensor(sizes, dtype=torch.int64).reshape(len(samples), 2)
    return Images(pixels.permute(0, 3, 1, 2), valid_hw, tuple((h, w) for h, w in sizes)), targets
