"""What two runs of one graph decide alike."""

from __future__ import annotations

import torch
from torch import Tensor

from internimage import create
from internimage.backbones import BackboneConfig
from internimage.exporting.graphs import build_graph

TINY = BackboneConfig(channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8))


def objects(boxes: list[list[float]], labels: list[int]) -> tuple[Tensor, ...]:
    """One image with these objects in ten rows."""
    rows = torch.zeros(1, 10, 4)
    rows[0, : len(boxes)] = torch.tensor(boxes).reshape(-1, 4)
    classes = torch.full((1, 10), -1)
    classes[0, : len(labels)] = torch.tensor(labels, dtype=torch.int64)
    scores = (classes >= 0).float()
    return rows, scores, classes, torch.tensor([len(labels)])


def test_of_detectors() -> None:
    graph = build_graph(create("faster_rcnn", backbone=TINY, num_classes=3).eval())
    box, other = [10.0, 10, 50, 50], [60.0, 60, 90, 90]
    expected = objects([box, other], [0, 2])
    assert graph.agreement(objects([other, [10.2, 10, 50, 50]], [2, 0]), expected) == 1  # in another order
    assert graph.agreement(objects([box, other], [0, 1]), expected) == 0.5  # another class
    assert graph.agreement(objects([box], [0]), expected) == 2 / 3  # one is missing
    assert graph.agreement(objects([], []), objects([], [])) == 1


def test_of_classes_and_of_maps() -> None:
    graph = build_graph(create("classifier", backbone=TINY, num_classes=3).eval())
    logits = torch.tensor([[0.0, 1, 2], [3, 1, 2], [0, 5, 2], [0, 1, 9]])
    assert graph.agreement((logits * 1.01,), (logits,)) == 1
    assert graph.agreement((logits.roll(1, 1),), (logits,)) == 0
    assert graph.agreement((logits[:2],), (logits,)) == 0  # of another size
