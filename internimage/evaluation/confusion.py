"""Truth against answers, pixel by pixel, and the figures that follow from it.

Shape legend: H W image size in pixels, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.data.label_maps.label_map import IGNORED

STRIP_ROWS = 1024  # counting needs wide integers: a few rows at a time


class PixelConfusion:
    """How many pixels of each class were answered with each class.

    Args:
        counts: (K, K + 1) int64; rows are the truth, columns the answers, the last one answers that are none of the K
            classes: they count as wrong for their true class, and against no other.

    Raises:
        ValueError: the counts are not (K, K + 1).
    """

    def __init__(self, counts: Tensor) -> None:
        if counts.ndim != 2 or counts.shape[1] != counts.shape[0] + 1 or counts.shape[0] < 1:
            raise ValueError(f"counts must be (K, K + 1), given {tuple(counts.shape)}")
        self.counts = counts

    @classmethod
    def empty(cls, num_classes: int) -> PixelConfusion:
        """Return a confusion without pixels."""
        return cls(torch.zeros(num_classes, num_classes + 1, dtype=torch.int64))

    @classmethod
    def of(cls, truth: Tensor, answer: Tensor, num_classes: int) -> PixelConfusion:
        """Compare two label maps.

        Args:
            truth: (H, W) integer class of every pixel; pixels of 255 are left out.
            answer: (H, W) integer class of every pixel.
            num_classes: K.

        Raises:
            ValueError: the sizes differ, or a true class is out of range.

        Example:
            >>> truth, answer = torch.tensor([[0, 0, 1, 255]]), torch.tensor([[0, 1, 7, 0]])
            >>> PixelConfusion.of(truth, answer, 2).counts.tolist()
            [[1, 1, 0], [0, 0, 1]]
        """
        if truth.shape != answer.shape or truth.ndim != 2:
            raise ValueError(
                f"truth and answer must be label maps of one size, given {tuple(truth.shape)}, {tuple(answer.shape)}"
            )
        counts = torch.zeros(num_classes * (num_classes + 1), dtype=torch.int64)
        for true, given in zip(truth.split(STRIP_ROWS), answer.split(STRIP_ROWS), strict=True):
            is_labeled = true != IGNORED
            rows, columns = true[is_labeled].long(), given[is_labeled].long()
            if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < num_classes:
                raise ValueError(
                    f"true classes must lie in 0..{num_classes - 1} or be {IGNORED}, given {int(rows.max())}"
                )
            columns = torch.where((columns < 0) | (columns >= num_classes), num_classes, columns)
            counts += torch.bincount(rows * (num_classes + 1) + columns, minlength=len(counts))
        return cls(counts.view(num_classes, num_classes + 1))

    def __add__(self, other: PixelConfusion) -> PixelConfusion:
        return PixelConfusion(self.counts + other.counts)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.counts.shape[0]

    @property
    def intersect(self) -> Tensor:
        """(K,) pixels that are right."""
        return self.counts.diagonal()

    @property
    def true_pixels(self) -> Tensor:
        """(K,) pixels that are of each class."""
        return self.counts.sum(dim=1)

    @property
    def answered_pixels(self) -> Tensor:
        """(K,) labeled pixels that were answered with each class."""
        return self.counts[:, :-1].sum(dim=0)

    @property
    def union(self) -> Tensor:
        """(K,) pixels that are or were answered as each class."""
        return self.true_pixels + self.answered_pixels - self.intersect

    @property
    def iou(self) -> Tensor:
        """(K,) float64 intersection over union, 0..1; NaN for classes that neither are nor were answered."""
        return self.intersect.double() / self.union

    @property
    def recall(self) -> Tensor:
        """(K,) float64 share of the pixels of each class that are right, 0..1; NaN for absent classes."""
        return self.intersect.double() / self.true_pixels

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that have one, 0..1; NaN without any."""
        return float(self.iou.nanmean())

    @property
    def macc(self) -> float:
        """Mean of `recall` over the classes that have one, 0..1; NaN without any."""
        return float(self.recall.nanmean())

    @property
    def aacc(self) -> float:
        """Share of all labeled pixels that are right, 0..1; NaN without any."""
        return float(self.intersect.sum().double() / self.true_pixels.sum())
