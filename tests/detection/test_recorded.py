"""Operators, costs, matching and sampling against the recorded numbers of the original (ops_det, losses_detection)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from internimage import ops
from internimage.backbones import variant
from internimage.detection import DINOConfig
from internimage.detection.config import AssignConfig, SampleConfig, SetLossConfig
from internimage.detection.dino.loss import Predictions, class_cost, match
from internimage.detection.dino.transformer import DINOTransformer, Memory, _cell_references, inverse_sigmoid
from internimage.detection.rcnn.loss import choose_at_random, draw_samples
from internimage.layers.deform_attention import MSDeformAttention
from internimage.ops.boxes import pairwise_overlaps, to_corners
from internimage.types import DetectionTargets
from tests.parity import seeding

PARITY = Path(__file__).parents[1] / "parity" / "data"
STORED = np.load(PARITY / "ops_det" / "outputs.npz")
MANIFEST = json.loads((PARITY / "ops_det" / "manifest.json").read_text(encoding="utf-8"))
LOSSES = np.load(PARITY / "training" / "losses_detection.npz")
RECORDS = json.loads((PARITY / "training" / "losses_detection.json").read_text(encoding="utf-8"))
SHAPES = [(6, 8), (3, 4)]


def stored(name: str) -> torch.Tensor:
    return torch.from_numpy(STORED[name])


def loss(name: str) -> torch.Tensor:
    return torch.from_numpy(LOSSES[name])


def bits(name: str) -> torch.Tensor:
    shape = STORED[f"{name}.shape"]
    return torch.from_numpy(np.unpackbits(STORED[f"{name}.bits"])[: shape.prod()].reshape(shape)).bool()


def seeded(keys: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    shapes = {key: tuple(shape) for key, shape in keys.items()}
    values = seeding.state_dict(shapes, MANIFEST["seed"], {})
    return {key: torch.from_numpy(value) for key, value in values.items()}


@pytest.mark.parametrize(("case", "groups", "offset_scale"), [("dcnv3_a", 4, 1.0), ("dcnv3_b", 2, 2.0)])
@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_deformable_convolution(case: str, groups: int, offset_scale: float, backend: str) -> None:
    found = ops.dcnv3(
        *(stored(f"{case}.{name}") for name in ("x", "offset", "mask")),
        groups=groups,
        offset_scale=offset_scale,
        backend=backend,  # type: ignore[arg-type]
    )
    torch.testing.assert_close(found, stored(f"{case}.out"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["msda_ref2", "msda_ref4"])
@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_deformable_attention(case: str, backend: str) -> None:
    layer = MSDeformAttention(32, 4, num_levels=2, backend=backend)
    layer.load_state_dict(seeded(MANIFEST["module_keys"]["msda"]))
    query, position, value = (stored(f"{case}.{name}").transpose(0, 1) for name in ("query", "query_pos", "value"))
    with torch.no_grad():
        found = query + layer(
            query + position, value, stored(f"{case}.ref"), SHAPES, padding=bits(f"{case}.key_padding")
        )
    torch.testing.assert_close(found.transpose(0, 1), stored(f"{case}.out"), rtol=1e-5, atol=1e-5)


def test_proposals_of_the_encoder() -> None:
    transformer = DINOTransformer(DINOConfig(variant("internimage_pico"), 2, channels=8, num_levels=2, num_heads=2))
    weights = seeded(MANIFEST["module_keys"]["enc_proposals"])
    for name, part in (("enc_output", transformer.proposal_fc), ("enc_output_norm", transformer.proposal_norm)):
        part.load_state_dict({key: weights[f"{name}.{key}"] for key in ("weight", "bias")})
    padding = bits("enc_proposals.mask")
    parts = padding.split([h * w for h, w in SHAPES], dim=1)
    valid = tuple(~part.unflatten(1, shape) for part, shape in zip(parts, SHAPES, strict=True))
    memory = Memory(stored("enc_proposals.memory"), padding, valid, stored("enc_proposals.valid_ratios"))
    with torch.no_grad():
        cells, proposals = transformer.propose(memory)
    torch.testing.assert_close(cells, stored("enc_proposals.out_memory"), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(proposals.nan_to_num(posinf=1e9), stored("enc_proposals.proposals"))
    torch.testing.assert_close(_cell_references(memory), stored("enc_proposals.reference_points"))


def test_inverse_sigmoid() -> None:
    torch.testing.assert_close(inverse_sigmoid(stored("inverse_sigmoid.x"), eps=1e-5), stored("inverse_sigmoid.out"))
    torch.testing.assert_close(inverse_sigmoid(stored("inverse_sigmoid.x")), stored("inverse_sigmoid.out_1e3"))


def test_costs_and_matching_of_queries() -> None:
    logits, boxes, true_boxes, labels = (loss(f"hungarian.{name}") for name in ("cls", "box", "gt_boxes", "gt_labels"))
    height, width = RECORDS["hungarian"]["img_shape"]
    relative = true_boxes / torch.tensor([width, height, width, height])
    relative = torch.cat([(relative[:, :2] + relative[:, 2:]) / 2, relative[:, 2:] - relative[:, :2]], dim=1)
    weights = SetLossConfig()
    torch.testing.assert_close(weights.class_cost * class_cost(logits, labels), loss("hungarian.cost_cls"))
    torch.testing.assert_close(weights.box_cost * torch.cdist(boxes, relative, p=1), loss("hungarian.cost_l1"))
    overlap = pairwise_overlaps(to_corners(boxes), to_corners(relative), "giou")
    torch.testing.assert_close(-weights.iou_cost * overlap, loss("hungarian.cost_giou"), rtol=1e-4, atol=1e-5)
    [(queries, objects)] = match(Predictions(logits[None], boxes[None]), [relative], [labels], weights)
    numbers = torch.zeros(len(logits), dtype=torch.int64)  # the original counts objects from 1, 0 for none
    numbers[queries] = objects + 1
    assert numbers.tolist() == loss("hungarian.gt_inds").tolist()
    assert labels[objects].tolist() == loss("hungarian.labels")[queries].tolist()


@pytest.mark.parametrize("assigner", ["rpn", "rcnn", "cascade1", "cascade3"])
@pytest.mark.parametrize("sampler", ["sample_rpn", "sample_rcnn"])
def test_how_many_examples_are_drawn(assigner: str, sampler: str) -> None:
    limits, wanted = RECORDS[f"assign.{assigner}"], RECORDS[f"assign.{assigner}.{sampler}"]
    assign = AssignConfig(
        limits["pos_iou_thr"], limits["neg_iou_thr"], limits["min_pos_iou"], limits["match_low_quality"]
    )
    sample = SampleConfig(wanted["num"], wanted["pos_fraction"], wanted["add_gt_as_proposals"])
    boxes = loss("assign.gts")
    target = DetectionTargets(boxes, torch.zeros(len(boxes), dtype=torch.int64))
    [drawn] = draw_samples([loss("assign.boxes")], [target], assign, sample, choose_at_random)
    assert (drawn.positives, len(drawn.boxes) - drawn.positives) == (wanted["positives"], wanted["negatives"])
    assert len(set(drawn.indices.tolist())) == len(drawn.indices)
