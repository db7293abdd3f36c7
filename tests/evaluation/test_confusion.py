"""Figures against those recorded from the original on the same label maps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from internimage.data.label_maps.label_map import plain_values, zero_is_nothing
from internimage.evaluation.confusion import PixelConfusion

PARITY = Path(__file__).parents[1] / "parity" / "data" / "training"
RECORDED = np.load(PARITY / "metrics_segmentation.npz")
FACTS = json.loads((PARITY / "metrics_segmentation.json").read_text())


def confusions(case: str) -> list[PixelConfusion]:
    facts = FACTS[case]
    values = (zero_is_nothing if facts["reduce_zero_label"] else plain_values)(facts["classes"])
    table = torch.tensor(values.table)
    return [
        PixelConfusion.of(
            table[torch.from_numpy(RECORDED[f"{case}.gt_png.{i}"]).long()],
            torch.from_numpy(RECORDED[f"{case}.pred.{i}"]),
            facts["classes"],
        )
        for i in range(facts["images"])
    ]


@pytest.mark.parametrize("case", FACTS)
def test_recorded_cases(case: str) -> None:
    parts = confusions(case)
    for name, value in {
        "intersect": parts[0].intersect,
        "union": parts[0].union,
        "pred": parts[0].predicted_pixels,
        "label": parts[0].true_pixels,
    }.items():
        np.testing.assert_array_equal(value, RECORDED[f"{case}.area_{name}.0"])
    total = sum(parts, PixelConfusion.empty(FACTS[case]["classes"]))
    np.testing.assert_allclose(total.iou, RECORDED[f"{case}.iou"], rtol=1e-6)
    np.testing.assert_allclose(total.recall, RECORDED[f"{case}.acc"], rtol=1e-6)
    for name in ("aAcc", "mIoU", "mAcc"):
        assert getattr(total, name.lower()) == pytest.approx(FACTS[case][name], rel=1e-6)


def test_answers_out_of_range_count_against_the_ground_truth_only() -> None:
    confusion = PixelConfusion.of(torch.tensor([[0, 0, 1]]), torch.tensor([[0, 40, -1]]), 3)
    assert confusion.true_pixels.tolist() == [2, 1, 0] and confusion.predicted_pixels.tolist() == [1, 0, 0]
    assert confusion.iou[:2].tolist() == [0.5, 0.0] and math.isnan(confusion.iou[2])
    assert confusion.miou == 0.25 and confusion.aacc == pytest.approx(1 / 3)


def test_strips_of_large_maps_add_up() -> None:
    targets, answer = torch.randint(0, 4, (2, 1500, 6), dtype=torch.uint8)
    counts = PixelConfusion.of(targets, answer, 4).counts
    assert int(counts.sum()) == 9000
    assert int(counts[2, 3]) == int(((targets == 2) & (answer == 3)).sum())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        PixelConfusion.of(torch.zeros(2, 3), torch.zeros(3, 2), 2)
    with pytest.raises(ValueError, match=r"0\.\.1 or be 255, given 2"):
        PixelConfusion.of(torch.tensor([[2]]), torch.tensor([[0]]), 2)
    with pytest.raises(ValueError, match=r"\(K, K \+ 1\)"):
        PixelConfusion(torch.zeros(2, 2))
    assert math.isnan(PixelConfusion.empty(2).miou) and math.isnan(PixelConfusion.empty(2).aacc)
