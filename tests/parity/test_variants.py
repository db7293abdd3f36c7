"""Cases of the recorded format with other settings than the recorded ones, judged by numbers found another way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.detection import DINO
from internimage.detection.dino.denoising import Noise
from internimage.hub.load import from_original
from internimage.types import DetectionTargets, Images
from tests.parity import seeding

CASES = Path(__file__).parent / "data" / "cases"
Manifest = dict[str, Any]
Produce = Callable[..., dict[str, np.ndarray]]


@pytest.fixture
def produce(run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Produce:
    """Write a case, run it, and let `compare.py` judge where expected numbers are given."""

    def call(
        kind: str,
        manifest: Manifest,
        inputs: Mapping[str, np.ndarray] | None = None,
        expected: Callable[[], Mapping[str, Any]] | None = None,
    ) -> dict[str, np.ndarray]:
        case = tmp_path / f"{kind}_variant"
        case.mkdir(exist_ok=True)
        (case / "manifest.json").write_text(json.dumps(manifest))
        if inputs:
            np.savez(case / "outputs.npz", **inputs)
        assert run("run_case", case, tmp_path / "out.npz") == 0
        if expected is not None:
            np.savez(case / "outputs.npz", **{name: np.asarray(value) for name, value in expected().items()})
            assert run("compare", case, tmp_path / "out.npz") == 0, capsys.readouterr().out
        with np.load(tmp_path / "out.npz") as produced:
            return dict(produced)

    return call


def recorded(case: str, **source: Any) -> Manifest:
    """The manifest of a recorded case with another input."""
    manifest = json.loads((CASES / case / "manifest.json").read_text())
    manifest["input"] = {**manifest.get("input", {}), **source}
    return manifest


def trained(manifest: Manifest) -> Manifest:
    """The same model in training: the norm of every gradient is asked for."""
    learned = [key for key in manifest["shapes"] if "running_" not in key and "num_batches" not in key]
    return {**manifest, "grad_norm_names": json.dumps(learned)}


def seeded(manifest: Manifest) -> Any:
    shapes = {key: tuple(shape) for key, shape in manifest["shapes"].items()}
    values = seeding.state_dict(shapes, manifest["seed"], manifest.get("gains"))
    return from_original(manifest["config"], {key: torch.from_numpy(value) for key, value in values.items()})


def pixels_of(manifest: Manifest) -> Tensor:
    source = manifest["input"]
    return torch.from_numpy(seeding.image(source["seed"], source["height"], source["width"], source["batch"]))


# Operators


def sampled(x: Tensor, place: Tensor) -> Tensor:
    """Bilinear values (N, Ho, Wo, C) of (N, H, W, C) at (N, Ho, Wo, 2) places (x, y) in pixels, 0 outside."""
    n, height, width, _ = x.shape
    low = place.detach().floor()
    total = torch.zeros(*place.shape[:3], x.shape[3], dtype=x.dtype)
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = low[..., 0] + dx, low[..., 1] + dy
            weight = (1 - (place[..., 0] - column).abs()) * (1 - (place[..., 1] - row).abs())
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            values = x.reshape(n, height * width, -1)[torch.arange(n)[:, None, None], index]
            total = total + (weight * inside)[..., None] * values
    return total


def by_points(case: Manifest, x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """The sum over the points of a window, one point and one group at a time; `offset` (N, Ho, Wo, G, P, 2)."""
    (kh, kw), stride, pad, dilation = (np.broadcast_to(case[k], 2) for k in ("kernel", "stride", "pad", "dilation"))
    ho, wo = offset.shape[1:3]
    center = torch.tensor([(dilation[1] * (kw - 1)) // 2, (dilation[0] * (kh - 1)) // 2]).double()
    rows, columns = torch.meshgrid(torch.arange(ho), torch.arange(wo), indexing="ij")
    start = torch.stack([columns * stride[1] - pad[1], rows * stride[0] - pad[0]], dim=-1) + center  # (Ho, Wo, 2)
    points = [(a, b) for a in range(kw) for b in range(kh)]  # x is the outer loop
    if case["remove_center"]:
        points.remove((kw // 2, kh // 2))
    outputs = []
    for g, part in enumerate(x.split(case["group_channels"], dim=3)):
        total = torch.zeros(())
        for p, (a, b) in enumerate(points):
            cell = torch.tensor([a * dilation[1], b * dilation[0]]).double() - center
            place = start + (cell + offset[:, :, :, g, p]) * case["offset_scale"]
            total = total + weight[:, :, :, g, p, None] * sampled(part, place)
        outputs.append(total)
    return torch.cat(outputs, dim=3)


WINDOWS = [
    {"kernel": [1, 9], "stride": [2, 1], "pad": [0, 4], "dilation": [1, 2], "remove_center": 0},
    {"kernel": [9, 1], "stride": 1, "pad": [4, 1], "dilation": 1, "remove_center": 1},
    {"kernel": [2, 4], "stride": [1, 3], "pad": 1, "dilation": [2, 1], "remove_center": 0},
    {"kernel": 3, "stride": 1, "pad": [1, 0], "dilation": 1, "remove_center": 1},
]


@pytest.mark.parametrize("kind", ["dcnv3_op", "dcnv4_op"])
def test_windows_that_are_not_square(kind: str, produce: Produce) -> None:
    shape = {"n": 2, "h": 9, "w": 11, "group": 2, "group_channels": 3, "offset_amplitude": 0.9, "offset_scale": 0.75}
    cases = [{**shape, **window} for window in WINDOWS]
    for case in cases:
        points = int(np.prod(np.broadcast_to(case["kernel"], 2))) - case["remove_center"]
        case["offset_mask_channels"] = -(-2 * 3 * points // 8) * 8

    def expected() -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for i, case in enumerate(cases):
            found |= {f"op{i}.{name}": value for name, value in expected_operator(kind, i, case).items()}
        return found

    produced = produce(kind, {"seed": 3, "cases": cases}, expected=expected)
    assert produced["op0.output"].shape == (2, 5, 3, 6)


def expected_operator(kind: str, index: int, case: Manifest) -> dict[str, Tensor]:
    def noise(name: str, *shape: int) -> Tensor:
        return torch.from_numpy(seeding.uniform(3, f"op{index}.{name}", shape))

    (kh, kw), stride, pad, dilation = (np.broadcast_to(case[k], 2) for k in ("kernel", "stride", "pad", "dilation"))
    sides = zip((case["h"], case["w"]), (kh, kw), stride, pad, dilation, strict=True)
    ho, wo = (int((side + 2 * p - d * (k - 1) - 1) // s + 1) for side, k, s, p, d in sides)
    groups, points = case["group"], int(kh * kw - case["remove_center"])
    x = noise("input", 2, case["h"], case["w"], 6).requires_grad_()
    if kind == "dcnv3_op":
        offset = (0.9 * noise("offset", 2, ho, wo, groups * points * 2)).requires_grad_()
        mask = noise("mask_logits", 2, ho, wo, groups * points).unflatten(-1, (groups, points)).softmax(-1)
        mask = mask.flatten(3).requires_grad_()
        inputs = {"input": x, "offset": offset, "mask": mask}
        shifts, weights = offset.unflatten(-1, (groups, points, 2)), mask.unflatten(-1, (groups, points))
    else:
        packed = noise("offset_mask", 2, ho, wo, case["offset_mask_channels"])
        for g in range(groups):
            packed[..., 3 * g * points : 3 * g * points + 2 * points] *= 0.9
        inputs = {"input": x, "offset_mask": packed.requires_grad_()}
        by_group = packed[..., : 3 * groups * points].unflatten(-1, (groups, 3 * points))
        shifts, weights = by_group[..., : 2 * points].unflatten(-1, (points, 2)), by_group[..., 2 * points :]
    output = by_points(case, x, shifts, weights)
    gradients = torch.autograd.grad(output, list(inputs.values()), noise("grad", *output.shape))
    named = {f"grad_{name}": gradient for name, gradient in zip(inputs, gradients, strict=True)}
    return {"output": output.detach(), **named}


# Segmentors


@pytest.mark.parametrize("case", ["upernet_t_reduced", "segformer_l_reduced", "mask2former_slide"])
def test_segmentors_take_batches(case: str, produce: Produce) -> None:
    manifest = recorded(case, batch=3, height=83, width=101, ori_shape=[60, 90, 3])

    def expected() -> dict[str, Tensor]:
        model, pixels = seeded(manifest), pixels_of(manifest)
        logits, maps = [], []
        with torch.inference_mode():
            for one in pixels.split(1):
                [scores] = model.run(Images(one, torch.tensor([[83, 101]]), ((83, 101),)))
                logits.append(torch.cat(list(scores.strips()), dim=1))
                maps.append(model.backbone(one).maps[0])
        at_input = torch.stack(logits)
        original = F.interpolate(at_input, size=(60, 90), mode="bilinear", align_corners=False)
        return {
            "backbone0": torch.cat(maps),
            "logits_input_size": at_input,
            "prob_ori_size": original.softmax(dim=1),
            "label_map": original.argmax(dim=1).to(torch.uint8),
        }

    produce(case.split("_")[0], manifest, expected=expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_segformer_trains(batch: int, produce: Produce) -> None:
    manifest = trained(recorded("segformer_l_reduced", batch=batch))
    labels = np.random.default_rng(0).integers(0, 19, (batch, 12, 16)).repeat(8, axis=1).repeat(8, axis=2)
    labels[:, :10] = 255

    def expected() -> dict[str, float]:
        model, targets = seeded(manifest).train(), torch.from_numpy(labels)
        model.head.dropout.p = 0.0
        logits = model.head(model.backbone(pixels_of(manifest)))
        logits = F.interpolate(logits, size=targets.shape[1:], mode="bilinear", align_corners=False)
        loss = F.cross_entropy(logits, targets, ignore_index=255, reduction="none").mean()
        value = float(loss.detach())
        is_labeled = targets != 255
        right = float((logits.argmax(dim=1)[is_labeled] == targets[is_labeled]).double().mean())
        loss.backward()
        norm = float(model.backbone.patch_embed.conv1.weight.grad.norm())
        return {"loss.decode.loss_ce": value, "total": value, "loss.decode.acc_seg": 100 * right, "first": norm}

    produced = produce("segformer", manifest, {"gt_semantic_seg": labels.astype(np.uint8)})
    wanted = expected()
    for name in ("loss.decode.loss_ce", "total", "loss.decode.acc_seg"):
        np.testing.assert_allclose(produced[name], wanted[name], rtol=1e-4)
    np.testing.assert_allclose(produced["grad_norm"][0], wanted["first"], rtol=1e-3)
    assert (produced["grad_norm"] > 0).mean() > 0.95


def test_a_batch_without_labels_trains(produce: Produce) -> None:
    blank = np.full((2, 96, 128), 255, dtype=np.uint8)
    dense = produce("segformer", trained(recorded("segformer_l_reduced", batch=2)), {"gt_semantic_seg": blank})
    assert dense["loss.decode.acc_seg"] == dense["total"] == 0
    masks = produce("mask2former", recorded("mask2former_train"), {"gt_semantic_seg": blank})
    assert masks["loss.decode.loss_mask"] == 0 and masks["total"] > 0
    assert (masks["rand_shapes"][:, 0] == 1).all()  # one draw for each layer and image, none for matched masks


def test_scales_and_flips_are_those_of_the_pipeline(produce: Produce) -> None:
    manifest = recorded("mask2former_tta_pipeline")
    augment = manifest["config"]["test_pipeline"][1]
    augment["img_ratios"], augment["flip"] = [1.0, 0.75], False
    plain = produce("mask2former", manifest)
    assert plain["tta.sizes"].tolist() == [[128, 192, 0], [96, 160, 0]]
    mean = (plain["tta0.prob"] + plain["tta1.prob"]) / 2
    assert (mean.argmax(axis=1) == plain["label_map"]).all()
    del augment["img_ratios"]
    single = produce("mask2former", manifest)
    assert "tta0.prob" not in single
    np.testing.assert_allclose(single["prob_ori_size"], plain["tta0.prob"], atol=1e-6)


# Detectors


@pytest.mark.parametrize("case", ["mask_rcnn_reduced", "dino_h_reduced"])
def test_detectors_take_images_of_many_sizes(case: str, produce: Produce) -> None:
    sizes, factors = [[96, 128], [80, 101], [96, 90]], [[1.0] * 4, [1.25, 1.5, 1.25, 1.5], [2.0] * 4]
    manifest = recorded(case, height=96, width=128, batch=3, img_shapes=sizes, scale_factors=factors)
    manifest["input"].pop("scale_factor", None)

    def expected() -> dict[str, Tensor]:
        model, found = seeded(manifest), {}
        for i, one in enumerate(pixels_of(manifest).split(1)):
            images = Images(one, torch.tensor(sizes[i : i + 1]), ((sizes[i][0], sizes[i][1]),))
            with torch.inference_mode():
                [result] = model.postprocess(model(images.pixels, images.valid_hw), images)
            boxes = result.boxes_xyxy / torch.tensor(factors[i])
            found |= {f"img{i}.det_boxes": boxes, f"img{i}.det_scores": result.scores}
            found[f"img{i}.det_labels"] = result.labels
        return found

    produced = produce("mask_rcnn" if "mask" in case else "dino", manifest, expected=expected)
    if "mask" in case:
        assert produced["img1.det_masks"].shape[1:] == (53, 81)
        boxes, area = produced["img1.det_boxes"], produced["img1.det_mask_area"]
        assert area.max() > 100 and (area <= np.prod(boxes[:, 2:] - boxes[:, :2] + 2, axis=1)).all()


def objects(counts: list[int], size_hw: tuple[int, int]) -> dict[str, np.ndarray]:
    """Targets as cases store them."""
    rng, found = np.random.default_rng(1), {}
    for i, count in enumerate(counts):
        corner = rng.uniform(5, 50, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(12, 40, (count, 2))], axis=1).astype(np.float32)
        masks = np.zeros((count, *size_hw), dtype=bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = True
        found |= {f"gt_boxes{i}": boxes, f"gt_labels{i}": rng.integers(0, 80, count)}
        found |= {f"gt_masks{i}.bits": np.packbits(masks), f"gt_masks{i}.shape": np.array(masks.shape)}
    return found


@pytest.mark.parametrize("counts", [[2, 0, 1], [0, 0]], ids=str)
@pytest.mark.parametrize("case", ["mask_rcnn_train_first", "dino_train_noise"])
def test_detectors_train_on_images_without_objects(case: str, counts: list[int], produce: Produce) -> None:
    sizes = [[96 - 3 * i, 128 - 5 * i] for i in range(len(counts))]
    manifest = recorded(case, batch=len(counts), height=96, width=128, img_shapes=sizes)
    if case == "dino_train_noise":
        manifest["config"]["model"]["bbox_head"]["dn_cfg"]["noise_scale"] = {"label": 0.0, "box": 0.0}
    produced = produce(case.rsplit("_", 1)[0], manifest, objects(counts, (96, 128)))
    losses = [value for name, value in produced.items() if name.startswith("loss.")]
    np.testing.assert_allclose(np.sum(losses), produced["total"], rtol=1e-5)
    assert np.isfinite(produced["grad_norm"]).all() and produced["grad_norm"].max() > 0
    boxes = produced["loss.loss_bbox"]
    assert (boxes > 0) == any(counts)


@pytest.mark.parametrize(("label_noise", "box_noise"), [(0.5, 0.0), (0.0, 1.0)])
def test_noise_of_one_kind_alone(label_noise: float, box_noise: float, produce: Produce) -> None:
    manifest = recorded("dino_train_noise", img_shapes=[[128, 160], [100, 131]])
    manifest["config"]["model"]["bbox_head"]["dn_cfg"]["noise_scale"] = {"label": label_noise, "box": box_noise}
    targets, rng = objects([3, 1], (128, 160)), np.random.default_rng(2)
    rows = 2 * (40 // 3) * 4
    draw, signs = rng.uniform(0, 1, rows).astype(np.float32), rng.integers(0, 2, (rows, 4)).astype(np.float32)
    wrong, shifts = rng.integers(0, 80, rows), rng.uniform(0, 1, (rows, 4)).astype(np.float32)
    if label_noise:
        random = {"rand.0.rand_like": draw, "rand.1.randint_like": wrong[draw < 0.25]}
    else:
        random = {"rand.0.randint_like": signs, "rand.1.rand_like": shifts}
    produced = produce("dino_train", manifest, {**targets, **random})

    model = seeded(manifest).train()
    assert isinstance(model, DINO)
    noise = Noise(*map(torch.from_numpy, (draw, wrong, signs * 2 - 1, shifts)))
    images = Images(pixels_of(manifest), torch.tensor([[128, 160], [100, 131]]), ((128, 160), (100, 131)))
    targets = [
        DetectionTargets(torch.from_numpy(targets[f"gt_boxes{i}"]), torch.from_numpy(targets[f"gt_labels{i}"]))
        for i in range(2)
    ]
    wanted = model.loss(images, targets, noise=noise)
    np.testing.assert_allclose(produced["loss.dn_loss_iou"], float(wanted["dn_loss_iou"].detach()), rtol=1e-4)
    np.testing.assert_allclose(produced["loss.dn_loss_cls"], float(wanted["dn_loss_cls"].detach()), rtol=1e-4)


def test_stored_numbers_are_not_needed_where_nothing_is_an_input(produce: Produce) -> None:
    produced = produce("small", recorded("small_prenorm", batch=1, height=49, width=70))
    assert produced["logits"].shape == (1, 10) and produced["grad_input"].shape == (1, 3, 49, 70)
    assert "roi_feats" not in produce("mask_rcnn", recorded("mask_rcnn_reduced"))
