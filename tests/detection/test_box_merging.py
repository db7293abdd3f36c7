from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from internimage.detection.box_merging import merge_boxes


def boxes_of(seed: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (number, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 30, (number, 2))], axis=1)
    return boxes, rng.permutation(number) / number + 0.01, rng.integers(0, 3, number)


def test_suppression_equals_that_of_torchvision() -> None:
    boxes, scores, groups = boxes_of(0, 200)
    merged = merge_boxes(boxes, scores, groups, method="nms", iou=0.4, min_score=0.0)
    expected = batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(groups), 0.4)
    assert merged.sources.tolist() == expected.tolist()
    assert np.array_equal(merged.boxes, boxes[expected]) and np.array_equal(merged.scores, scores[expected])


def overlap(a: Any, b: Any) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(sides[0], 0) * max(sides[1], 0)
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def test_soft_suppression_equals_its_definition() -> None:
    boxes, scores, groups = boxes_of(1, 60)
    merged = merge_boxes(boxes, scores, groups, method="soft_nms", min_score=0.05)
    left, expected = dict(enumerate(scores)), {}
    while left:
        best = max(left, key=lambda i: left[i])
        expected[best] = left.pop(best)
        for i in left:
            if groups[i] == groups[best]:
                left[i] *= np.exp(-(overlap(boxes[i], boxes[best]) ** 2) / 0.5)
    expected = {i: score for i, score in expected.items() if score >= 0.05}
    assert dict(zip(merged.sources.tolist(), merged.scores, strict=True)) == pytest.approx(expected)
    assert merged.scores.tolist() == sorted(merged.scores.tolist(), reverse=True)


def test_fusion_is_a_mean_weighted_by_scores() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 0, 10, 10]])
    scores, groups = np.array([0.6, 0.2, 0.4, 0.5]), np.array([0, 0, 0, 1])
    merged = merge_boxes(boxes, scores, groups, method="fusion", iou=0.5, num_views=2)
    assert merged.sources.tolist() == [0, 3, 2]
    assert merged.boxes[0] == pytest.approx([0.25, 0, 10.25, 10])
    assert merged.scores.tolist() == pytest.approx([0.4, 0.25, 0.2])  # seen twice, once, once of two views
    single = merge_boxes(boxes[:2], scores[:2], groups[:2], method="fusion", num_views=1)
    assert single.scores.tolist() == pytest.approx([0.4])  # more answers than views: their mean


@pytest.mark.parametrize("method", ["nms", "soft_nms", "fusion"])
def test_nothing_and_boxes_without_extent(method: Any) -> None:
    none = merge_boxes(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=int), method=method)
    assert len(none.sources) == 0 and none.boxes.shape == (0, 4)
    flat = merge_boxes(np.ones((3, 4)), np.array([0.5, 0.0, 0.4]), np.zeros(3, dtype=int), method=method)
    assert np.isfinite(flat.boxes).all() and np.isfinite(flat.scores).all() and len(flat.scores) >= 1


def test_wrong_requests() -> None:
    boxes, scores, groups = boxes_of(2, 3)
    with pytest.raises(ValueError, match="method must be one of nms, soft_nms, fusion"):
        merge_boxes(boxes, scores, groups, method="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="iou"):
        merge_boxes(boxes, scores, groups, iou=0.0)
