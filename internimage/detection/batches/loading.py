"""From an image's index to its training view, and from views to a batch.

Shape legend: N images of a batch, H W size of the padded batch, G objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from internimage.data.dataset import ImageDataset, Unreadable, read_sample
from internimage.data.objects.annotation import ObjectTargets
from internimage.detection.batches.augment import Step, TrainingView, augment
from internimage.types import DetectionTargets, Images

MAX_TRIES = 1000
MAX_UNREADABLE = 100  # different images that are tried in vain for one view


class DrawnView(NamedTuple):
    """A training view, and the broken images whose place it took."""

    view: TrainingView
    unreadable: tuple[Unreadable, ...]


class TrainingViews:
    """Views of images under random numbers that depend on seed, visit and image alone.

    An image that cannot be read, or that the pipeline rejects, is replaced by another one of its group.

    Args:
        dataset: the images.
        pipeline: the steps of augmentation, for example one of `PIPELINES`.
        seed: seed of the run, 0 or more.
        groups: (N,) group of each image, see `orientations`; None where batches may mix them.
    """

    def __init__(
        self,
        dataset: ImageDataset[ObjectTargets],
        pipeline: Sequence[Step],
        *,
        seed: int,
        groups: np.ndarray | None = None,
    ) -> None:
        self.dataset, self.pipeline, self.seed = dataset, pipeline, seed
        self.groups = np.zeros(len(dataset), dtype=np.int64) if groups is None else groups
        if len(self.groups) != len(dataset):
            raise ValueError(f"expected the groups of {len(dataset)} images, given {len(self.groups)}")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> DrawnView:
        """Return the view of (visit, image); the visit is the index of the epoch or of the iteration.

        Raises:
            ValueError: no image could be used.
        """
        visit, image = key
        rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((self.seed, visit, image))))
        unreadable: list[Unreadable] = []
        for _ in range(MAX_TRIES):
            entry = read_sample(self.dataset, image)
            if isinstance(entry, Unreadable):
                unreadable.append(entry)
            else:
                view = augment(entry, self.pipeline, rng)
                if view is not None:
                    return DrawnView(view, tuple(unreadable))
            pool = np.flatnonzero(self.groups == self.groups[image])
            broken = {entry.index for entry in unreadable}
            if len(broken) >= min(len(pool), MAX_UNREADABLE):
                raise ValueError(f"none of {len(broken)} images can be read; the last one: {unreadable[-1].reason}")
            image = int(pool[rng.randint(len(pool))])
        last = unreadable[-1].reason if unreadable else "the pipeline rejects every image"
        raise ValueError(f"no image could be used in {MAX_TRIES} tries: {last}")


def collate(
    views: Sequence[TrainingView], *, normalize: Callable[[Tensor], Tensor], divisor: int = 32
) -> tuple[Images, list[DetectionTargets]]:
    """Put views into one batch.

    Args:
        views: N views, all with masks or all without.
        normalize: maps (h, w, C) uint8 to float32 of the same shape, with the statistics of the detector.
        divisor: the padded batch is a multiple of this, in pixels.

    Returns:
        (N, C, H, W) normalized pixels, channels last in memory, zeros at the right and the bottom; and N targets, their
        masks (G, H, W) bool.
    """
    sizes = [(view.pixels.shape[0], view.pixels.shape[1]) for view in views]
    height, width = (math.ceil(max(side) / divisor) * divisor for side in zip(*sizes, strict=True))
    pixels = torch.zeros(len(views), height, width, views[0].pixels.shape[2])  # (N, H, W, C)
    targets: list[DetectionTargets] = []
    for row, view, (h, w) in zip(pixels, views, sizes, strict=True):
        row[:h, :w] = normalize(view.pixels)
        masks = None
        if view.masks is not None:
            masks = torch.zeros(len(view.labels), height, width, dtype=torch.bool)
            masks[:, :h, :w] = view.masks
        targets.append(DetectionTargets(view.boxes_xyxy, view.labels, masks))
    valid_hw = torch.tensor(sizes, dtype=torch.int64)
    original_hw = tuple(view.original_hw for view in views)
    return Images(pixels.permute(0, 3, 1, 2), valid_hw, original_hw), targets
