"""The confusion of one image as it is kept: most pairs of classes have no pixel.

Shape legend: H W image size in pixels, K classes, P pairs of a true and a predicted class that have pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from internimage.evaluation.confusion import PixelConfusion
from internimage.evaluation.record_log import Entry, RecordFormat


class PixelCounts(NamedTuple):
    """How many pixels of an image were predicted as what."""

    name: str  # of the image
    pairs: Tensor  # (P, 3) int64: true class, predicted class (K for none of them), pixels

    @classmethod
    def of(cls, name: str, target: Tensor, prediction: Tensor, num_classes: int) -> PixelCounts:
        """Compare two (H, W) label maps, see `PixelConfusion.of`."""
        counts = PixelConfusion.of(target, prediction, num_classes).counts
        true, predicted = counts.nonzero(as_tuple=True)
        return cls(name, torch.stack([true, predicted, counts[true, predicted]], dim=1))

    def confusion(self, num_classes: int) -> PixelConfusion:
        """Return all pairs of classes.

        Raises:
            IndexError: a class is out of range.
        """
        whole = PixelConfusion.empty(num_classes)
        true, predicted, pixels = self.pairs.unbind(dim=1)
        whole.counts[true, predicted] = pixels
        return whole


def pixel_counts_format(num_classes: int) -> RecordFormat[PixelCounts]:
    """Return how the counts of images with `num_classes` classes are written down."""

    def to_plain(record: PixelCounts) -> Entry:
        return {"name": record.name, "pixels": record.pairs.tolist()}

    def from_plain(entry: Entry) -> PixelCounts:
        record = PixelCounts(str(entry["name"]), torch.tensor(entry["pixels"], dtype=torch.int64).reshape(-1, 3))
        if record.pairs.numel() and int(record.pairs.min()) < 0:
            raise ValueError("classes and pixels are counted from 0")
        record.confusion(num_classes)
        return record

    return RecordFormat("segmentation progress", 3, to_plain, from_plain, holds_ground_truth=True)
