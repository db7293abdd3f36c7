"""Box arithmetic against the recorded numbers of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from internimage.ops.boxes import (
    aligned_overlaps,
    clip_boxes,
    decode_deltas,
    encode_deltas,
    nms_in_groups,
    pairwise_overlaps,
    to_center_size,
    to_corners,
)

PARITY = Path(__file__).parents[1] / "parity" / "data"
STDS = (0.1, 0.1, 0.2, 0.2)


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    stored = np.load(PARITY / "ops_det" / "outputs.npz")
    return {name: torch.from_numpy(stored[name]) for name in stored.files}


def test_decoding_of_extreme_deltas(recorded: dict[str, torch.Tensor]) -> None:
    boxes, deltas = recorded["delta2bbox.boxes"][:, None], recorded["delta2bbox.deltas"].unflatten(1, (2, 4))
    clipped = decode_deltas(boxes, deltas, STDS, clip_hw=torch.tensor([100, 120]))
    torch.testing.assert_close(clipped.flatten(1), recorded["delta2bbox.out"])
    torch.testing.assert_close(decode_deltas(boxes, deltas, STDS).flatten(1), recorded["delta2bbox.out_unclipped"])


def test_encoding_and_its_inverse(recorded: dict[str, torch.Tensor]) -> None:
    boxes, true_boxes = recorded["bbox2delta.boxes"], recorded["bbox2delta.gt"]
    deltas = encode_deltas(boxes, true_boxes, STDS)
    torch.testing.assert_close(deltas, recorded["bbox2delta.out"])
    torch.testing.assert_close(decode_deltas(boxes, deltas, STDS), true_boxes)


def test_overlaps(recorded: dict[str, torch.Tensor]) -> None:
    for kind in ("iou", "giou"):
        found = pairwise_overlaps(recorded["giou.a"], recorded["giou.b"], kind)
        torch.testing.assert_close(found, recorded[f"giou.{kind}"])
    stored = np.load(PARITY / "training" / "losses_detection.npz")
    boxes, true_boxes = (torch.from_numpy(stored[f"assign.{name}"]) for name in ("boxes", "gts"))
    for kind in ("iou", "iof", "giou"):
        found = pairwise_overlaps(boxes[:20], true_boxes, kind)
        torch.testing.assert_close(found, torch.from_numpy(stored[f"overlaps.{kind}"]))


def test_overlaps_of_boxes_without_area_are_finite() -> None:
    flat = torch.tensor([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 4.0, 0.0]])
    for kind in ("iou", "iof", "giou"):
        assert pairwise_overlaps(flat, flat, kind).isfinite().all()


def test_suppression_in_groups(recorded: dict[str, torch.Tensor]) -> None:
    keep = nms_in_groups(*(recorded[f"batched_nms.{name}"] for name in ("boxes", "scores", "ids")), 0.5)
    assert keep.tolist() == recorded["batched_nms.keep"].tolist()
    assert nms_in_groups(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5).tolist() == []


def test_suppression_of_many_classes(recorded: dict[str, torch.Tensor]) -> None:
    scores, boxes = recorded["multiclass_nms.scores"][:, :-1], recorded["multiclass_nms.boxes"].unflatten(1, (3, 4))
    region, label = (scores > 0.05).nonzero(as_tuple=True)
    keep = nms_in_groups(boxes[region, label], scores[region, label], label, 0.5)[:25]
    torch.testing.assert_close(boxes[region, label][keep], recorded["multiclass_nms.dets"][:, :4])
    assert label[keep].tolist() == recorded["multiclass_nms.labels"].tolist()


def test_conversions_are_inverse_and_clipping_knows_which_side_is_which() -> None:
    boxes = torch.tensor([[1.0, 2.0, 7.0, 5.0], [-3.0, 4.0, 20.0, 30.0]])
    torch.testing.assert_close(to_corners(to_center_size(boxes)), boxes)
    assert clip_boxes(boxes, torch.tensor([6, 10]))[1].tolist() == [0.0, 4.0, 10.0, 6.0]


def test_equal_boxes_overlap_wholly() -> None:
    boxes = torch.rand(5, 2).repeat(1, 2) + torch.tensor([0.0, 0.0, 1.0, 2.0])
    torch.testing.assert_close(aligned_overlaps(boxes, boxes, "giou"), torch.ones(5))
