"""Accuracy of classifiers and segmentors against torchmetrics, on random data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional import accuracy, confusion_matrix, jaccard_index

from internimage.backbones import variant
from internimage.classification import ClassificationPreprocess, Classifier, ClassifierConfig
from internimage.classification.evaluate import evaluate_classification
from internimage.data import Sample
from internimage.evaluation.confusion import PixelConfusion


@pytest.mark.parametrize("seed", range(8))
def test_pixel_confusion(seed: int) -> None:
    draw = np.random.default_rng(seed)
    classes = int(draw.integers(2, 8))
    size = tuple(int(side) for side in draw.integers(1, 40, 2))
    targets = torch.from_numpy(draw.integers(0, classes, size))
    answer = torch.where(
        torch.from_numpy(draw.random(size) < 0.5), targets, torch.from_numpy(draw.integers(0, classes, size))
    )
    targets[torch.from_numpy(draw.random(size) < 0.2)] = 255
    ours = PixelConfusion.of(targets, answer, classes)
    settings = dict(task="multiclass", num_classes=classes, ignore_index=255)
    theirs = confusion_matrix(answer, targets, **settings)
    assert torch.equal(ours.counts[:, :-1], theirs)
    iou = jaccard_index(answer, targets, average="none", **settings)
    known = ~ours.iou.isnan()
    torch.testing.assert_close(ours.iou[known].float(), iou[known])
    recall = accuracy(answer, targets, average="none", **settings)
    known = ~ours.recall.isnan()
    torch.testing.assert_close(ours.recall[known].float(), recall[known])
    if known.any():
        assert ours.aacc == pytest.approx(float(accuracy(answer, targets, average="micro", **settings)), abs=1e-6)


class Noise:
    """Random images of random classes."""

    class_names = tuple("abcdefgh")

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Sample[int]:
        draw = np.random.default_rng(index)
        return Sample(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8), int(draw.integers(8)), str(index))


def test_top1_top5_and_confusion() -> None:
    torch.manual_seed(1)
    small = ClassificationPreprocess(size=32)
    model = Classifier(ClassifierConfig(variant("internimage_pico"), num_classes=8, preprocess=small)).eval()
    data = Noise()
    report = evaluate_classification(model, data, batch_size=16)
    scores = torch.stack([found.scores for found in model.predict([data[i].image for i in range(40)])])
    targets = torch.tensor([data[i].target for i in range(40)])
    settings = dict(task="multiclass", num_classes=8)
    assert report.top1 == pytest.approx(float(accuracy(scores, targets, average="micro", **settings)))
    assert report.top5 == pytest.approx(float(accuracy(scores, targets, average="micro", top_k=5, **settings)))
    assert torch.equal(report.confusion, confusion_matrix(scores, targets, **settings))
    loss = torch.nn.functional.nll_loss(scores.double().log(), targets)
    assert report.loss == pytest.approx(float(loss), rel=1e-5)
