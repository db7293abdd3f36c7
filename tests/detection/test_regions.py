"""Anchors, levels of regions and their features against the recorded numbers of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from internimage.detection.config import RPNConfig
from internimage.detection.rcnn.anchors import base_anchors, grid_anchors, inside_flags
from internimage.detection.rcnn.roi_heads import in_parts, region_features, region_levels
from internimage.detection.rcnn.rpn import RPN, RPNOutputs

STORED = np.load(Path(__file__).parents[1] / "parity" / "data" / "ops_det" / "outputs.npz")


def recorded(name: str) -> torch.Tensor:
    return torch.from_numpy(STORED[name])


def test_anchors() -> None:
    config = RPNConfig()
    base = torch.stack([base_anchors(stride, config.scale, config.ratios) for stride in config.strides])
    torch.testing.assert_close(base, recorded("anchors.base"))
    torch.testing.assert_close(grid_anchors((3, 4), 8, base[1]), recorded("anchors.grid_l1"))


def test_levels_of_regions() -> None:
    side = recorded("levels.side")
    rois = torch.stack([torch.zeros_like(side)] * 3 + [side, side], dim=1)
    assert region_levels(rois, 4, 56).tolist() == recorded("levels.level").tolist()


@pytest.mark.parametrize("side", [7, 14])
def test_features_of_regions(side: int) -> None:
    maps, rois = [recorded(f"roi_align{side}.feat")], recorded(f"roi_align{side}.rois")
    found = region_features(maps, rois, side, strides=[4], finest_scale=56)
    torch.testing.assert_close(found, recorded(f"roi_align{side}.out"), rtol=1e-5, atol=1e-5)


def test_regions_in_parts() -> None:
    seen: list[int] = []

    def function(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen.append(len(x))
        return x + y, y

    x, y = torch.rand(10, 2), torch.rand(10, 2)
    with torch.inference_mode():
        total, same = in_parts(function, 4, x, y)
        assert torch.equal(total, x + y) and torch.equal(same, y) and seen == [4, 4, 2]
    in_parts(function, 4, x, y)
    assert seen[3:] == [10]


def test_no_regions() -> None:
    assert region_features([torch.rand(1, 3, 8, 8)], torch.zeros(0, 5), 7, strides=[4], finest_scale=56).shape[0] == 0


def test_anchors_outside_of_the_image_or_in_the_padding_of_the_batch_are_left_out() -> None:
    anchors = grid_anchors((4, 4), 8, base_anchors(8, 1.0, [1.0]))
    valid, padded = torch.tensor([[32, 32], [16, 24]]), torch.tensor([[32, 32], [16, 32]])
    anywhere = inside_flags(anchors, (4, 4), 8, valid, padded, -1).view(2, 4, 4)
    assert anywhere[0].all() and anywhere[1, :2].all() and not anywhere[1, 2:].any()
    inside = inside_flags(anchors, (4, 4), 8, valid, padded, 0).view(2, 4, 4)
    assert inside[0, 1:, 1:].all() and not inside[0, 0].any() and inside[1].sum() == 2


def test_nan_outputs_stay_among_the_proposals() -> None:
    rpn = RPN(8, RPNConfig(channels=8, strides=(4,)))
    outputs = RPNOutputs([torch.full((1, 3, 4, 4), float("nan"))], [torch.zeros(1, 12, 4, 4)])
    assert rpn.propose(outputs, torch.tensor([[16, 16]]), rpn.config.test).scores.isnan().any()
    outputs = RPNOutputs([torch.zeros(1, 3, 4, 4)], [torch.full((1, 12, 4, 4), float("nan"))])
    assert rpn.propose(outputs, torch.tensor([[16, 16]]), rpn.config.test).boxes.isnan().any()
