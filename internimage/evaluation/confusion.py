"""Ground truth against predictions, counted, and the metrics that follow from it.

Shape legend: N images or pixels, H W image size in pixels, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internimage.data.label_maps.label_map import IGNORED
from internimage.moved import renamed_attribute

STRIP_ROWS = 1024  # counting needs wide integers: a few rows at a time


def count_pairs(target: Tensor, prediction: Tensor, num_classes: int, *, ignored: int | None = None) -> Tensor:
    """Return the confusion matrix of classes.

    Args:
        target: (N,) integer true class, 0..K - 1.
        prediction: (N,) integer predicted class.
        num_classes: K.
        ignored: true class that is left out, too.

    Returns:
        (K, K + 1) int64 counts; rows are the ground truth, columns the predictions, the last one those that are none of
        the K classes.

    Raises:
        ValueError: a true class is out of range.

    Example:
        >>> count_pairs(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 7]), 2).tolist()
        [[1, 1, 0], [0, 0, 1]]
    """
    if ignored is not None:
        target, prediction = target[target != ignored], prediction[target != ignored]
    target, prediction = target.long(), prediction.long()
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < num_classes:
        allowed = f"0..{num_classes - 1}" + ("" if ignored is None else f" or be {ignored}")
        raise ValueError(f"true classes must lie in {allowed}, given {int(target.max())}")
    columns = torch.where((prediction < 0) | (prediction >= num_classes), num_classes, prediction)
    pairs = target * (num_classes + 1) + columns
    return torch.bincount(pairs, minlength=num_classes * (num_classes + 1)).view(num_classes, num_classes + 1)


class PixelConfusion:
    """How many pixels of each class were predicted as each class.

    Args:
        counts: (K, K + 1) int64; rows are the ground truth, columns the predictions, the last one predictions that are
            none of the K classes: they count as wrong for their true class, and against no other.

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
    def of(cls, target: Tensor, prediction: Tensor, num_classes: int) -> PixelConfusion:
        """Compare two label maps.

        Args:
            target: (H, W) integer class of every pixel; pixels of 255 are left out.
            prediction: (H, W) integer class of every pixel.
            num_classes: K.

        Raises:
            ValueError: the sizes differ, or a true class is out of range.

        Example:
            >>> target, prediction = torch.tensor([[0, 0, 1, 255]]), torch.tensor([[0, 1, 7, 0]])
            >>> PixelConfusion.of(target, prediction, 2).counts.tolist()
            [[1, 1, 0], [0, 0, 1]]
        """
        if target.shape != prediction.shape or target.ndim != 2:
            raise ValueError(
                f"target and prediction must be label maps of one size, given {tuple(target.shape)}, "
                f"{tuple(prediction.shape)}"
            )
        total = cls.empty(num_classes)
        for true, predicted in zip(target.split(STRIP_ROWS), prediction.split(STRIP_ROWS), strict=True):
            total += cls(count_pairs(true.flatten(), predicted.flatten(), num_classes, ignored=IGNORED))
        return total

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
    def predicted_pixels(self) -> Tensor:
        """(K,) labeled pixels that were predicted as each class."""
        return self.counts[:, :-1].sum(dim=0)

    answered_pixels = renamed_attribute("answered_pixels", "predicted_pixels")

    @property
    def union(self) -> Tensor:
        """(K,) pixels that are or were predicted as each class."""
        return self.true_pixels + self.predicted_pixels - self.intersect

    @property
    def iou(self) -> Tensor:
        """(K,) float64 intersection over union, 0..1; NaN for classes that neither are nor were predicted."""
        return self.intersect.double() / self.union

    @property
    def recall(self) -> Tensor:
        """(K,) float64 fraction of the pixels of each class that are right, 0..1; NaN for absent classes."""
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
        """Fraction of all labeled pixels that are right, 0..1; NaN without any."""
        return float(self.intersect.sum().double() / self.true_pixels.sum())
