"""Metrics of classifiers: accuracy of the best and of the five best classes, cross entropy.

Shape legend: N images, M classes that compete in a prediction.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TOP_K = 5


class ClassScore(NamedTuple):
    """How good the prediction for one image is."""

    target: int  # true class
    prediction: int  # class with the highest score
    in_top5: bool  # whether the true class is among the five best
    loss: float  # cross entropy


def score_logits(logits: Tensor, targets: Tensor) -> list[ClassScore]:
    """Compare (N, M) float predictions with (N,) int64 true classes, 0..M - 1; return a score for each image.

    Example:
        >>> [score] = score_logits(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([2]))
        >>> score.prediction, score.in_top5, round(score.loss, 3)
        (1, True, 1.408)
    """
    best = logits.topk(min(TOP_K, logits.shape[1]), dim=1).indices
    in_top5 = (best == targets[:, None]).any(dim=1)
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    columns = (targets, best[:, 0], in_top5, losses)
    return [ClassScore(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
