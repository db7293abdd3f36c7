"""Losses against the values and gradients recorded from the original, and the cases that training meets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.ops.assignment import match_least_cost
from internimage.segmentation import Mask2FormerConfig
from internimage.segmentation.loss import (
    MaskTargets,
    check_targets,
    class_loss,
    dice_loss,
    mask2former_losses,
    mask_targets,
    matching_cost,
    pixel_loss,
    sample_points,
)
from internimage.segmentation.mask2former.network import QueryOutput
from internimage.types import Images

RECORDED = Path(__file__).parents[1] / "parity" / "data" / "training" / "losses_segmentation.npz"
SMALL = Mask2FormerConfig(loss_points=64)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    with np.load(RECORDED) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def check(recorded: dict[str, Tensor], name: str, value: Tensor, variable: Tensor) -> None:
    value.backward()
    torch.testing.assert_close(value.detach(), recorded[f"{name}.value"])
    torch.testing.assert_close(variable.grad, recorded[f"{name}.grad"], atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "weight", "count_ignored"),
    [("seg_ce", 1.0, True), ("seg_ce_aux04", 0.4, True), ("seg_ce_avg_non_ignore", 1.0, False)],
)
def test_pixel_loss(recorded: dict[str, Tensor], name: str, weight: float, count_ignored: bool) -> None:
    logits = recorded[f"{name}.in.pred"].clone().requires_grad_()
    loss = weight * pixel_loss(logits, recorded[f"{name}.in.label"], count_ignored_pixels=count_ignored)
    check(recorded, name, loss, logits)


def test_parts_of_the_set_loss(recorded: dict[str, Tensor]) -> None:
    logits = recorded["m2f_cls.in.pred"].clone().requires_grad_()
    check(recorded, "m2f_cls", 2.0 * class_loss(logits, recorded["m2f_cls.in.label"], 0.1), logits)
    logits = recorded["m2f_dice.in.pred"].clone().requires_grad_()
    check(recorded, "m2f_dice", 5.0 * dice_loss(logits, recorded["m2f_dice.in.target"]).sum() / 3, logits)
    logits = recorded["m2f_mask.in.pred"].clone().requires_grad_()
    cross_entropy = F.binary_cross_entropy_with_logits(logits[:, 0], recorded["m2f_mask.in.target"], reduction="sum")
    check(recorded, "m2f_mask", 5.0 * cross_entropy / 120, logits)


def test_matching(recorded: dict[str, Tensor]) -> None:
    target = MaskTargets(recorded["m2f_assign.gt_labels"], recorded["m2f_assign.gt_points"])
    points = recorded["m2f_assign.mask_points"]
    cost = matching_cost(recorded["m2f_assign.cls"], points, target, Mask2FormerConfig())
    expected = sum(recorded[f"m2f_assign.cost_{part}"] for part in ("cls", "mask", "dice"))
    torch.testing.assert_close(cost, expected)
    matched = torch.zeros(len(points), dtype=torch.int64)
    queries, indices = match_least_cost(cost)
    matched[queries] = indices + 1
    assert torch.equal(matched, recorded["m2f_assign.gt_inds"])


def test_regions_of_a_label_map() -> None:
    labels, masks = mask_targets(torch.tensor([[3, 3], [255, 1]]))
    assert labels.tolist() == [1, 3]
    assert masks.tolist() == [[[0, 0], [0, 1]], [[1, 1], [0, 0]]]


def test_points_are_sampled_from_edge_to_edge() -> None:
    maps = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
    points = torch.tensor([[[0.125, 0.5], [0.5, 0.5], [0.875, 0.5]]])
    torch.testing.assert_close(sample_points(maps, points), torch.tensor([[0.0, 1.5, 3.0]]))


def test_right_queries_cost_little() -> None:
    targets = torch.zeros(1, 16, 16, dtype=torch.int64)
    targets[:, :, 8:] = 1
    masks = torch.full((1, 3, 16, 16), -20.0)
    masks[:, 0, :, 8:] = masks[:, 2, :, :8] = 20.0
    classes = torch.tensor([[[0.0, 20.0, 0.0], [0.0, 0.0, 20.0], [20.0, 0.0, 0.0]]])
    good = mask2former_losses([QueryOutput(classes, masks)], targets, SMALL)
    bad = mask2former_losses([QueryOutput(classes, masks.transpose(2, 3))], targets, SMALL)
    # The points lie where masks are least certain: on their edges, where no prediction is free of loss.
    assert good["class"] < 1e-3
    assert good["mask"] < bad["mask"] / 5 and good["dice"] < bad["dice"] / 2


def test_images_without_labels_train_the_classes_only() -> None:
    masks = torch.randn(2, 4, 8, 8, requires_grad=True)
    classes = torch.randn(2, 4, 6, requires_grad=True)
    outputs = [QueryOutput(classes, masks)] * 2
    losses = mask2former_losses(outputs, torch.full((2, 16, 16), 255), SMALL)
    assert set(losses) == {"class", "mask", "dice", "layer0_class", "layer0_mask", "layer0_dice"}
    torch.stack(list(losses.values())).sum().backward()
    assert float(losses["mask"].detach()) == 0 and not masks.grad.any() and classes.grad.any()
    dense = torch.zeros(1, 3, 2, 2, requires_grad=True)
    assert float(pixel_loss(dense, torch.full((1, 8, 8), 255)).detach()) == 0


def test_more_regions_than_queries() -> None:
    targets = torch.arange(6).repeat_interleave(2)[None, :, None].expand(1, 12, 12)
    outputs = [QueryOutput(torch.randn(1, 2, 7), torch.randn(1, 2, 3, 3))]
    assert all(value.isfinite() for value in mask2former_losses(outputs, targets, SMALL).values())


@pytest.mark.parametrize(
    "targets",
    [
        torch.zeros(1, 8, 9, dtype=torch.int64),
        torch.zeros(1, 8, 8),
        torch.full((1, 8, 8), 4),
        torch.full((1, 8, 8), -1),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets: Tensor) -> None:
    images = Images(torch.zeros(1, 3, 8, 8), torch.tensor([[8, 8]]), ((8, 8),))
    with pytest.raises(ValueError, match="given"):
        check_targets(targets, images, 4)
