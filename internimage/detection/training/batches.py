"""Training batches of images with objects; they follow from seed, epoch and number, so that a run can be resumed.

Shape legend: B images of a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
import torch.utils.data

from internimage import parallel
from internimage.data import Unreadable
from internimage.data.objects.dataset import DetectionDataset
from internimage.detection.batches.augment import Pipeline
from internimage.detection.batches.grouping import endless_batches, epoch_batches
from internimage.detection.batches.loading import DrawnView, TrainingViews, collate
from internimage.detection.batches.pipelines import PIPELINES, own_data_pipeline
from internimage.detection.preprocess import DetectionPreprocess, normalize
from internimage.detection.training.recipe import OWN, DetectionAugmentSettings, DetectionRecipe
from internimage.processors import bounded_workers
from internimage.types import DetectionTargets, Images

logger = logging.getLogger("internimage.training.detection")


@dataclass(frozen=True)
class DetectionBatch:
    """One training batch.

    Args:
        images: normalized images, padded with zeros at the right and the bottom.
        targets: what is in each of the B images.
        unreadable: broken images; others took their places.
    """

    images: Images
    targets: list[DetectionTargets]
    unreadable: tuple[Unreadable, ...] = ()


class DetectionBatches:
    """The training set in batches of one orientation, in a new order in each epoch.

    Args:
        dataset: the training set.
        recipe: batch size, augmentation, seed; where its schedule counts iterations, images are drawn without end.
        masks: whether the model learns masks.
    """

    def __init__(self, dataset: DetectionDataset, recipe: DetectionRecipe, *, masks: bool) -> None:
        self.recipe = recipe
        size = recipe.data.batch_size * parallel.world()
        self._settings = dict(batch_size=size, seed=recipe.run.seed)
        self._own = parallel.own_rows(recipe.data.batch_size)
        logger.info("reads the sizes of %d images", len(dataset))
        self.groups = np.zeros(len(dataset), dtype=np.int64) if size == 1 else readable_orientations(dataset)
        source = dataset if masks else dataset.without_masks()
        self._views = TrainingViews(source, pipeline_of(recipe.augment), seed=recipe.run.seed, groups=self.groups)
        self._collate = _Collating(recipe.model.config.preprocess)
        self._is_endless = recipe.schedule.iterations > 0
        per_epoch = len(dataset) // size if self._is_endless else len(self._order(0))
        self.batches_per_epoch = max(1, per_epoch)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[DetectionBatch]:
        """Yield the batches of one epoch from number `start` on."""
        if self._is_endless:
            first, last = epoch * self.batches_per_epoch + start, (epoch + 1) * self.batches_per_epoch
            drawn = endless_batches(self.groups, start=first, **self._settings)
            keys = [[(number, int(i)) for i in next(drawn)[self._own]] for number in range(first, last)]
        else:
            keys = [[(epoch, int(i)) for i in indices] for indices in self._order(epoch)[start:]]
        loader: torch.utils.data.DataLoader[DetectionBatch] = torch.utils.data.DataLoader(
            self._views,  # type: ignore[arg-type]  # items and a length are all that a loader asks for
            batch_sampler=keys,
            num_workers=bounded_workers(self.recipe.data.workers),
            collate_fn=self._collate,
            generator=torch.Generator(),  # else each start would draw from the generator that layers use
        )
        for batch in loader:
            height, width = parallel.largest(batch.images.pixels.shape[-2:])
            yield padded(batch, height, width)

    def _order(self, epoch: int) -> np.ndarray:
        return epoch_batches(self.groups, epoch=epoch, **self._settings)[:, self._own]


class _Collating:
    """Turns views into a batch, in the worker process."""

    def __init__(self, preprocess: DetectionPreprocess) -> None:
        self.preprocess = preprocess

    def __call__(self, drawn: Sequence[DrawnView]) -> DetectionBatch:
        config = self.preprocess
        images, targets = collate(
            [entry.view for entry in drawn], normalize=partial(normalize, config=config), divisor=config.divisor
        )
        return DetectionBatch(images, targets, tuple(broken for entry in drawn for broken in entry.unreadable))


def padded(batch: DetectionBatch, height: int, width: int) -> DetectionBatch:
    """Return a batch with more zeros at the right and the bottom.

    Args:
        batch: with sides of this or less.
        height: of the padded images, in pixels.
        width: likewise.
    """
    own_height, own_width = batch.images.pixels.shape[-2:]
    if (own_height, own_width) == (height, width):
        return batch
    more = (0, width - own_width, 0, height - own_height)
    pixels = F.pad(batch.images.pixels.permute(0, 2, 3, 1), (0, 0, *more)).permute(0, 3, 1, 2)  # stays channels last
    masks = [None if target.masks is None else F.pad(target.masks, more) for target in batch.targets]
    targets = [replace(target, masks=own) for target, own in zip(batch.targets, masks, strict=True)]
    return replace(batch, images=replace(batch.images, pixels=pixels), targets=targets)


def pipeline_of(settings: DetectionAugmentSettings) -> Pipeline:
    """Return the steps that the settings name or describe.

    Raises:
        ValueError: a limit is out of range.
    """
    if settings.pipeline != OWN:
        return PIPELINES[settings.pipeline]
    return own_data_pipeline(
        shorter_side=settings.shorter_side,
        longer_side=settings.longer_side,
        smallest_crop=settings.smallest_crop,
        flip=settings.flip,
    )


def readable_orientations(dataset: DetectionDataset) -> np.ndarray:
    """Return the (N,) group of each image: 1 where it is wider than high, else 0, also where it cannot be read."""
    groups = np.zeros(len(dataset), dtype=np.int64)
    for i in range(len(dataset)):
        try:
            height, width = dataset.size_hw(i)
        except (ValueError, OSError):
            continue  # counted and reported when its batch is read
        groups[i] = width > height
    return groups
