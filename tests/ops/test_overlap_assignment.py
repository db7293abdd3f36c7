"""Assignment of boxes to objects against the recorded numbers of the original."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from internimage.ops.assignment import BACKGROUND, UNUSED, assign_by_overlap

FOLDER = Path(__file__).parents[1] / "parity" / "data" / "training"
NAMES = {"positive_iou": "pos_iou_thr", "negative_iou": "neg_iou_thr", "min_positive_iou": "min_pos_iou"}


@pytest.mark.parametrize("case", ["rpn", "rcnn", "cascade1", "cascade3", "with_ignore"])
def test_recorded_assignments(case: str) -> None:
    stored = np.load(FOLDER / "losses_detection.npz")
    options = json.loads((FOLDER / "losses_detection.json").read_text())[f"assign.{case}"]
    boxes, true_boxes, ignored = (torch.from_numpy(stored[f"assign.{name}"]) for name in ("boxes", "gts", "ignore"))
    assigned = assign_by_overlap(
        boxes,
        true_boxes,
        **{ours: options[theirs] for ours, theirs in NAMES.items()},
        match_low_quality=options["match_low_quality"],
        ignored=ignored if options["ignore_iof_thr"] > 0 else None,
    )
    # The original counts objects from 1, writes 0 for the background and -1 for neither.
    assert (assigned + 1).tolist() == stored[f"assign.{case}.gt_inds"].tolist()


def test_without_objects_everything_is_background() -> None:
    limits = dict(positive_iou=0.5, negative_iou=0.5, min_positive_iou=0.5, match_low_quality=True)
    assert assign_by_overlap(torch.rand(3, 4), torch.zeros(0, 4), **limits).tolist() == [BACKGROUND] * 3
    assert assign_by_overlap(torch.zeros(0, 4), torch.rand(2, 4), **limits).tolist() == []


def test_between_the_limits_a_box_is_unused() -> None:
    true_boxes = torch.tensor([[0.0, 0, 10, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 10], [50, 50, 60, 60]])
    limits = dict(positive_iou=0.7, negative_iou=0.3, min_positive_iou=0.3, match_low_quality=True)
    assert assign_by_overlap(boxes, true_boxes, **limits).tolist() == [UNUSED, 0, BACKGROUND]
