"""Training batches in an order that follows from the seed alone: a resumed run sees what the first one would have.

Shape legend: B images of a batch, S side in pixels, K classes.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from internimage import parallel
from internimage.classification.batches.augment import CropTransform, batch_mixer, crop_transform, shift_batch
from internimage.classification.preprocess import ClassificationPreprocess, Observation, encode_observation, fit
from internimage.classification.training.recipe import ClassificationRecipe
from internimage.data import ImageDataset, Unreadable, read_next, read_sample
from internimage.data.images.raster import pixels_of
from internimage.data.randomness import derived_seed, kept_generators, seed_generators
from internimage.data.unreadable import UnreadableLimit
from internimage.processors import bounded_workers

logger = logging.getLogger("internimage.training.classification")
# What a seed is for; keeps the streams of random numbers of one run apart.
_ORDER, _AUGMENT, _MIX = 1, 2, 3


@dataclass(frozen=True)
class TrainBatch:
    """One training batch.

    Args:
        pixels: (B, C, S, S) normalized.
        targets: (B,) class indices or (B, K) soft targets.
        metadata: (B, 7) encoded date and place of each image, see `encode_observation`; None where none is known.
    """

    pixels: Tensor
    targets: Tensor
    metadata: Tensor | None = None


class TrainBatches(ABC):
    """The training set, shuffled anew in each epoch and cut into full batches; the remainder is left out.

    Args:
        recipe: batch size, augmentation, seed.
        num_samples: images of the training set.
        num_classes: K.

    Raises:
        ValueError: the training set does not fill one step.
    """

    def __init__(self, recipe: ClassificationRecipe, *, num_samples: int, num_classes: int) -> None:
        self.recipe, self.num_samples = recipe, num_samples
        accumulation = recipe.optimizer.accumulation_steps
        self._whole_batch = recipe.data.batch_size * parallel.world()
        self.batches_per_epoch = num_samples // self._whole_batch // accumulation * accumulation
        if self.batches_per_epoch == 0:
            size = f"{parallel.world()} x {recipe.data.batch_size} x {accumulation}"
            raise ValueError(
                f"{num_samples} training images do not fill one step of {size}; lower data.batch_size or "
                "optimizer.accumulation_steps"
            )
        self._mix = batch_mixer(recipe.augment, num_classes=num_classes, label_smoothing=recipe.label_smoothing)

    def order(self, epoch: int) -> np.ndarray:
        """Return the (batches, B) sample indices of one epoch for this process."""
        return self._whole_order(epoch)[:, parallel.own_rows(self.recipe.data.batch_size)]

    def _whole_order(self, epoch: int) -> np.ndarray:
        """Return the sample indices of one epoch for all processes, a row for each whole batch."""
        order = np.random.default_rng(self._seed(_ORDER, epoch)).permutation(self.num_samples)
        return order[: self.batches_per_epoch * self._whole_batch].reshape(-1, self._whole_batch)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[TrainBatch]:
        """Yield the batches of one epoch from number `start` on."""
        for number, batch in enumerate(self._read(epoch, start), start):
            if self._mix is None:
                yield batch
            else:
                seed = self._seed(_MIX, epoch, number, 0)  # the same for the parts of a whole batch
                yield TrainBatch(*self._mix(batch.pixels, batch.targets, seed))

    def _seed(self, *keys: int) -> int:
        return derived_seed(self.recipe.run.seed, *keys)

    @abstractmethod
    def _read(self, epoch: int, start: int) -> Iterator[TrainBatch]:
        """Yield augmented batches before mixing."""


class ShiftBatches(TrainBatches):
    """Small images, decoded and resized once, augmented a whole batch at a time."""

    def __init__(
        self, dataset: ImageDataset[int], recipe: ClassificationRecipe, preprocess: ClassificationPreprocess
    ) -> None:
        logger.info("decodes %d images, which stay in memory", len(dataset))
        loaded = load_resized(dataset, preprocess, max_unreadable=recipe.data.max_unreadable)
        self.pixels, self.labels, self.metadata = loaded
        self.preprocess = preprocess
        super().__init__(recipe, num_samples=len(self.labels), num_classes=len(dataset.class_names))

    def _read(self, epoch: int, start: int) -> Iterator[TrainBatch]:
        own = parallel.own_rows(self.recipe.data.batch_size)
        for number, indices in enumerate(self._whole_order(epoch)[start:], start):
            chosen = torch.from_numpy(indices)
            seed = self._seed(_AUGMENT, epoch, number, 0)
            pixels = shift_batch(self.pixels[chosen], self.recipe.augment, self.preprocess, seed)
            rows = chosen[own]
            yield TrainBatch(pixels[own], self.labels[rows], None if self.metadata is None else self.metadata[rows])


class CropBatches(TrainBatches):
    """Images read and augmented one at a time, in worker processes."""

    def __init__(
        self, dataset: ImageDataset[int], recipe: ClassificationRecipe, preprocess: ClassificationPreprocess
    ) -> None:
        super().__init__(recipe, num_samples=len(dataset), num_classes=len(dataset.class_names))
        self._dataset, self._transform = dataset, crop_transform(recipe.augment, preprocess)
        self._limit = UnreadableLimit(recipe.data.max_unreadable, in_training=True)

    def _read(self, epoch: int, start: int) -> Iterator[TrainBatch]:
        seed = self.recipe.run.seed
        batches = _AugmentedBatches(self._dataset, self._transform, seed, epoch, self.order(epoch)[start:])
        loader = torch.utils.data.DataLoader(
            batches,
            batch_size=None,
            num_workers=bounded_workers(self.recipe.data.workers),
            generator=torch.Generator(),  # else each start would draw from the generator that layers use
        )
        for batch, unreadable in loader:
            self._limit.report(unreadable)
            yield batch


class _AugmentedBatches(torch.utils.data.Dataset):
    """Batches of augmented images; the random numbers of an image depend on seed, epoch and index alone."""

    def __init__(
        self,
        dataset: ImageDataset[int],
        transform: CropTransform,
        seed: int,
        epoch: int,
        order: np.ndarray,
    ) -> None:
        self.dataset, self.transform, self.seed, self.epoch, self.order = dataset, transform, seed, epoch, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> tuple[TrainBatch, list[Unreadable]]:
        indices = self.order[number].tolist()
        pixels = torch.empty(len(indices), *self.transform.shape)
        targets: list[int] = []
        observations: list[Observation | None] = []
        left_out: list[Unreadable] = []
        with kept_generators():
            for place, index in enumerate(indices):
                sample, unreadable = read_next(self.dataset, index)
                seed_generators(derived_seed(self.seed, _AUGMENT, self.epoch, index))
                self.transform(sample.image, pixels[place])
                targets.append(sample.target)
                observations.append(sample.observation)
                left_out += unreadable
        return TrainBatch(pixels, torch.tensor(targets), _metadata(observations)), left_out


def _metadata(observations: Sequence[Observation | None]) -> Tensor | None:
    """Return (B, 7) encoded dates and places, None where nothing is known of any image."""
    return encode_observation(observations) if any(observations) else None


def load_resized(
    dataset: ImageDataset[int], preprocess: ClassificationPreprocess, *, max_unreadable: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Decode and resize a whole data set.

    Returns:
        (N, C, S, S) uint8 pixels, C = 1 when all channels of every image are equal, else as many as are read; (N,)
        labels; (N, 7) encoded date and place, or None where none is known.

    Raises:
        ValueError: more than `max_unreadable` images are broken.
    """
    limit = UnreadableLimit(max_unreadable, in_training=True)
    parts: list[Tensor] = []
    labels: list[int] = []
    observations: list[Observation | None] = []
    for start in range(0, len(dataset), 512):
        entries = [read_sample(dataset, i) for i in range(start, min(start + 512, len(dataset)))]
        limit.report([entry for entry in entries if isinstance(entry, Unreadable)])
        samples = [entry for entry in entries if not isinstance(entry, Unreadable)]
        if not samples:
            continue
        images = np.stack([pixels_of(fit(sample.image, preprocess)) for sample in samples])
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        is_gray = bool((pixels == pixels[:, :1]).all())
        parts.append(pixels[:, :1].clone() if is_gray else pixels)
        labels += [sample.target for sample in samples]
        observations += [sample.observation for sample in samples]
    channels = max((part.shape[1] for part in parts), default=1)
    pixels = torch.cat([part.expand(-1, channels, -1, -1) for part in parts])
    return pixels, torch.tensor(labels), _metadata(observations)


def train_batches(
    dataset: ImageDataset[int], recipe: ClassificationRecipe, preprocess: ClassificationPreprocess
) -> TrainBatches:
    """Return the batches of a recipe over a training set, those of this process."""
    kind = ShiftBatches if recipe.augment.kind == "shift" else CropBatches
    return kind(dataset, recipe, preprocess)
