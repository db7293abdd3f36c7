"""Masks: run lengths drawn from probability maps, and targets cut out of true masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.ops.masks import crop_masks, paste_masks

RECORDED = Path(__file__).parents[1] / "parity" / "data" / "ops_det" / "outputs.npz"


def sampled(probability: Tensor, box: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """The definition: bilinear samples at the pixel centers, zeros outside of the map."""
    height, width = size_hw
    y = (torch.arange(height) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    x = (torch.arange(width) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    grid = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1)[None]
    return F.grid_sample(probability[None, None], grid, align_corners=False)[0, 0]


def test_recorded_masks() -> None:
    stored = np.load(RECORDED)
    probabilities, boxes = (
        torch.from_numpy(stored["paste_mask.prob"][:, 0]),
        torch.from_numpy(stored["paste_mask.boxes"]),
    )
    masks = paste_masks(probabilities, boxes, (60, 70)).to_bool().numpy()
    expected = stored["paste_mask.out"] >= 0.5
    for i in (0, 1, 3):
        assert (masks[i] == expected[i]).all()
    # A box without width touches a few columns here; the original fills whole rows of the picture.
    assert masks[2].sum(axis=1).max() <= 3 and not (masks[2] & ~expected[2]).any()


@pytest.mark.parametrize("side", [28, 7])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_every_pixel_agrees_with_the_definition(side: int, threshold: float) -> None:
    size_hw = (41, 53)
    corner = torch.rand(24, 2) * torch.tensor([50.0, 40.0]) - 5
    boxes = torch.cat([corner, corner + torch.rand(24, 2) * 40 + 0.5], dim=1)
    probabilities = torch.rand(24, side, side)
    masks = paste_masks(probabilities, boxes, size_hw, threshold=threshold)
    dense = torch.stack([sampled(p, b, size_hw) for p, b in zip(probabilities, boxes, strict=True)])
    is_clear = (dense - threshold).abs() > 1e-5
    assert (masks.to_bool() == (dense >= threshold))[is_clear].all()
    assert masks.areas.tolist() == masks.to_bool().sum(dim=(1, 2)).tolist()
    rows, columns = np.array([0, 17, 40]), np.array([3, 52])
    for mask, part in zip(masks.to_bool(), masks.sampled(rows, columns), strict=True):
        assert (mask.numpy()[np.ix_(rows, columns)] == part).all()


def test_degenerate_boxes_and_empty_input() -> None:
    boxes = torch.tensor([[5.0, 5, 5, 5], [-9, -9, -3, -3], [100, 100, 120, 120], [0, 3, 8, 3], [4, 4, 2, 2]])
    masks = paste_masks(torch.ones(5, 28, 28), boxes, (10, 12))
    assert masks.to_bool().shape == (5, 10, 12)
    assert masks.areas[1] == masks.areas[2] == 0
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (10, 12)).to_bool().shape == (0, 10, 12)


def test_a_large_picture_needs_little() -> None:
    boxes = torch.tensor([[10.0, 20, 19000, 18000]])
    masks = paste_masks(torch.ones(1, 28, 28), boxes, (20000, 20000))
    assert 0.999 < int(masks.areas[0]) / (18990 * 17980) < 1.0  # the corners are a little round


def test_compressed_run_lengths_are_those_of_the_coco_tools() -> None:
    masks = paste_masks(torch.ones(1, 28, 28), torch.tensor([[1.0, 1.0, 3.0, 3.0]]), (4, 5))
    [entry] = masks.to_coco()
    assert masks.counts[0].tolist() == [5, 2, 2, 2, 9]
    assert entry == {"size": [4, 5], "counts": "52207"}
    assert decompress(entry["counts"]) == masks.counts[0].tolist()
    noisy = paste_masks(torch.rand(6, 28, 28), torch.tensor([[0.0, 0, 300, 200]]).repeat(6, 1), (200, 300))
    for runs, entry in zip(noisy.counts, noisy.to_coco(), strict=True):
        assert decompress(entry["counts"]) == runs.tolist() and int(runs.sum()) == 200 * 300


def decompress(text: str) -> list[int]:
    """The inverse, written from the description of the format: five bits a letter, sign in the last one."""
    runs: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            letter = ord(text[position]) - 48
            value |= (letter & 31) << shift
            more, shift, position = bool(letter & 32), shift + 5, position + 1
            if not more and letter & 16:
                value |= -1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


def test_targets_of_the_mask_head() -> None:
    stored = np.load(RECORDED)
    shape = stored["mask_target.gt_masks.shape"]
    bits = np.unpackbits(stored["mask_target.gt_masks.bits"])[: shape.prod()].reshape(shape)
    boxes, objects = (torch.from_numpy(stored[f"mask_target.{name}"]) for name in ("boxes", "assigned"))
    targets = crop_masks(torch.from_numpy(bits), boxes, objects, 28)
    assert (targets.numpy() == stored["mask_target.out"]).all()
