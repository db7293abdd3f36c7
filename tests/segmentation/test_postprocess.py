from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.segmentation import SlidingWindow
from internimage.segmentation import postprocess as station
from internimage.segmentation.postprocess import ScoredWindow, ScoreMap, best_class, segment
from internimage.types import Images


def resize(scores: Tensor, size_hw: tuple[int, int]) -> Tensor:
    return F.interpolate(scores[None], size=size_hw, mode="bilinear", align_corners=False)[0]


@pytest.fixture(autouse=True)
def thin_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(station.STRIP_BYTES, "cpu", 5000)
    monkeypatch.setattr(station, "MIN_STRIP_ROWS", 1)


@pytest.mark.parametrize(
    ("input_hw", "original_hw"),
    [((32, 48), (32, 48)), ((32, 48), (75, 101)), ((97, 131), (40, 33)), ((33, 20), (1, 1)), ((5, 3), (500, 2))],
)
def test_strips_are_two_resizes_in_a_row(input_hw: tuple[int, int], original_hw: tuple[int, int]) -> None:
    scores = torch.randn(7, -(-input_hw[0] // 4), -(-input_hw[1] // 4))
    expected = resize(resize(scores, input_hw), original_hw)
    parts = list(ScoreMap([ScoredWindow(0, 0, *input_hw, scores)], input_hw, original_hw).strips())
    assert len(parts) > 1 or original_hw[0] < 3
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("original_hw", [(96, 130), (200, 77)])
def test_windows_are_averaged_where_they_overlap(original_hw: tuple[int, int]) -> None:
    input_hw, window = (96, 130), SlidingWindow((64, 48), (40, 30))
    windows = [ScoredWindow(t, left, 64, 48, torch.randn(3, 16, 12)) for t, left in window.corners(input_hw)]
    total, count = torch.zeros(3, *input_hw), torch.zeros(input_hw)
    for part in windows:
        rows, columns = slice(part.top, part.top + 64), slice(part.left, part.left + 48)
        total[:, rows, columns] += resize(part.scores, (64, 48))
        count[rows, columns] += 1
    expected = resize(total / count, original_hw)
    given = torch.cat(list(ScoreMap(windows, input_hw, original_hw).strips()), dim=1)
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)


def test_few_windows_are_in_memory_at_a_time() -> None:
    input_hw, window = (640, 64), SlidingWindow((64, 64), (32, 32))
    scores: ScoreMap
    held = []

    def compute() -> Iterator[ScoredWindow]:
        for top, left in window.corners(input_hw):
            held.append(len(scores._active))
            yield ScoredWindow(top, left, 64, 64, torch.zeros(2, 16, 16))

    scores = ScoreMap(compute(), input_hw, input_hw)
    assert sum(strip.shape[1] for strip in scores.strips()) == 640
    assert len(held) == 19 and max(held) <= 4


@pytest.mark.parametrize("classes", [1, 2, 150, 300])
def test_best_class_is_argmax_with_the_first_of_equals(classes: int) -> None:
    scores = torch.randint(0, 50, (classes, 9, 11)).float()
    label = best_class(scores)
    assert label.dtype == (torch.uint8 if classes <= 256 else torch.int16)
    torch.testing.assert_close(label.long(), torch.from_numpy(scores.numpy().argmax(axis=0)))


def test_broken_scores_are_not_answered() -> None:
    scores = torch.zeros(2, 4, 4)
    scores[1, 2, 2] = float("nan")
    images = Images(torch.zeros(1, 3, 16, 16), torch.tensor([[16, 16]]), ((16, 16),))
    with pytest.raises(ValueError, match="NaN"):
        segment(
            [ScoreMap([ScoredWindow(0, 0, 16, 16, scores)], (16, 16), (16, 16))], images, class_names=None, palette=None
        )


def test_probabilities_sum_to_one() -> None:
    images = Images(torch.zeros(1, 3, 16, 16), torch.tensor([[16, 16]]), ((20, 12),))
    scores = ScoreMap([ScoredWindow(0, 0, 16, 16, torch.randn(5, 4, 4))], (16, 16), (20, 12))
    [answer] = segment([scores], images, class_names=None, palette=None, probabilities=True)
    assert answer.probabilities is not None and answer.probabilities.shape == (5, 20, 12)
    torch.testing.assert_close(answer.probabilities.sum(dim=0), torch.ones(20, 12))
    assert torch.equal(answer.probabilities.argmax(dim=0), answer.label_map.long())
