from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from internimage.classification.loss import classification_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]])


def test_class_indices() -> None:
    targets = torch.tensor([0, 2])
    by_hand = -F.log_softmax(LOGITS, 1)[torch.arange(2), targets].mean()
    torch.testing.assert_close(classification_loss(LOGITS, targets), by_hand)


def test_label_smoothing_equals_soft_targets() -> None:
    targets = torch.tensor([0, 2])
    soft = F.one_hot(targets, 3).float() * 0.7 + 0.3 / 3
    smoothed = classification_loss(LOGITS, targets, label_smoothing=0.3)
    torch.testing.assert_close(smoothed, classification_loss(LOGITS, soft))


def test_half_precision_is_summed_in_float32() -> None:
    loss = classification_loss(LOGITS.half() * 1000, torch.tensor([1, 0]))
    assert loss.dtype == torch.float32 and loss.isfinite()


@pytest.mark.parametrize(
    "targets",
    [torch.tensor([0, 1, 2]), torch.tensor([0.0, 1.0]), torch.zeros(2, 4), torch.zeros(2, 3, dtype=torch.int64)],
)
def test_wrong_targets(targets: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(2,\) class indices or \(2, 3\) probabilities"):
        classification_loss(LOGITS, targets)
