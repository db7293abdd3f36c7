"""Classification loss: cross entropy for class indices and for soft targets.

Shape legend: N images, K classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def classification_loss(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross entropy.

    Args:
        logits: (N, K) raw scores.
        targets: (N,) int64 class indices, or (N, K) float probabilities (mixup, CutMix, distillation).
        label_smoothing: fraction of the target that is spread over all classes, 0..1; for class indices only, because
            soft targets carry their smoothing already.

    Returns:
        Scalar loss.

    Raises:
        ValueError: the shape of the targets fits neither form.

    Example:
        >>> import torch
        >>> round(float(classification_loss(torch.zeros(2, 4), torch.tensor([0, 3]))), 4)
        1.3863
    """
    if targets.shape == logits.shape and targets.is_floating_point():
        return -(targets * F.log_softmax(logits.float(), dim=-1)).sum(dim=-1).mean()
    if targets.shape == logits.shape[:1] and not targets.is_floating_point():
        return F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
    raise ValueError(
        f"targets must be ({logits.shape[0]},) class indices or {tuple(logits.shape)} probabilities, "
        f"given {tuple(targets.shape)} {targets.dtype}"
    )
