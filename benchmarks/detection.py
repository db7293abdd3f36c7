"""Detectors at 800 x 1344, by stage, beside torchvision's Mask R-CNN and transformers' Deformable DETR.

All weights are random, so a detector would find nothing. The scoring layers of the R-CNN family are scaled so that the
classes of a region differ: the usual 1000 regions and 100 objects are really worked on, and drawn, in all of them.

Run: `python -m benchmarks.run --only detection`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import internimage as ii
from benchmarks.record import bar_plot, print_table, save
from benchmarks.stages import Call, Stages, clock, stage_times
from internimage.cli.measuring.models import scatter_samples
from internimage.detection.dino.model import DINO
from internimage.detection.rcnn.model import RCNN
from internimage.detection.speed import spread_scores
from internimage.types import Images

SIZE = (800, 1344)
CHECK_SIZE = (96, 128)
MODELS = ("mask_rcnn internimage_t", "cascade_mask_rcnn internimage_l", "dino internimage_t")
PEERS = {
    "mask_rcnn internimage_t": "torchvision maskrcnn_resnet50_fpn_v2",
    "dino internimage_t": "transformers deformable_detr_resnet50",
}
TRUNK = ("backbone", "neck")
NETWORKS = (*TRUNK, "rpn", "box head", "mask head", "encoder", "query selection", "decoder")
STAGES = (
    *("backbone", "neck", "rpn", "proposals + nms", "roi_align", "box head", "box post-processing", "mask head"),
    *("encoder", "query selection", "decoder", "pasting + post-processing", "rest"),
    "total",
)


def build(name: str, device: str, backend: str = "auto") -> RCNN | DINO:
    """Return a detector with random weights whose samples are scattered."""
    torch.manual_seed(0)
    architecture, backbone = name.split()
    model = ii.create(architecture, backbone=backbone, num_classes=80, backend=backend).eval()
    assert isinstance(model, RCNN | DINO)
    scatter_samples(model)
    return model.to(device)


def ready(name: str, device: str, size_hw: tuple[int, int] = SIZE) -> RCNN | DINO:
    """Return a fused detector that has something to do."""
    model = build(name, device)
    if isinstance(model, RCNN):
        pixels = torch.randn(1, 3, size_hw[0] // 4, size_hw[1] // 4, device=device)
        # A ModuleList says that it holds plain modules.
        spread_scores([head.classifier for head in model.box_heads], lambda: model(pixels))  # pyright: ignore
    model.fuse()
    return model


def batch_of(pixels: Tensor) -> Images:
    """A batch without padding whose images had the size of the input."""
    size_hw = (pixels.shape[2], pixels.shape[3])
    return Images(pixels, torch.tensor([size_hw] * len(pixels)), (size_hw,) * len(pixels))


def measured(name: str, device: str, size_hw: tuple[int, int]) -> Call:
    """Return what is measured: forward and post-processing of one image."""
    model, batch = ready(name, device, size_hw), batch_of(torch.randn(1, 3, *size_hw, device=device))
    return Call(lambda: model.postprocess(model.run(batch), batch), stages_of(model), model)


def predicting(name: str, device: str, size_hw: tuple[int, int]) -> Callable[[], object]:
    """Return the function of `measured`, for a process of its own."""
    return measured(name, device, size_hw).run


def regions_and_objects(name: str, call: Call) -> dict[str, int]:
    """Count what was worked on."""
    counts: list[int] = []
    model = call.model
    hook = None
    if isinstance(model, RCNN):
        hook = model.box_heads[0].register_forward_hook(lambda _, inputs, __: counts.append(len(inputs[0])))
    with torch.inference_mode():
        [result] = call.run()  # pyright: ignore[reportGeneralTypeIssues]  # a `Call` may return anything
    if hook is not None:
        hook.remove()
    return {"regions": sum(counts), "objects": len(result)}


def stages_of(model: RCNN | DINO) -> Stages:
    """Name the stages of a detector of this package."""
    shared = {
        "backbone": [(model.backbone, "forward")],
        "neck": [(model.neck, "forward")],
        "pasting + post-processing": [(model, "postprocess")],
    }
    if isinstance(model, DINO):
        return {
            **shared,
            "encoder": [(model, "encode")],
            "query selection": [(model, "select"), (model, "start")],
            "decoder": [(model, "refine")],
        }
    return {
        **shared,
        "rpn": [(model.rpn, "forward")],
        "proposals + nms": [(model.rpn, "propose")],
        "roi_align": [(model, "region_features")],
        "box head": [(head, "forward") for head in model.box_heads],
        "box post-processing": [(model, "classify")],
        "mask head": [(model, "draw_masks")],
    }


def torchvision_peer(device: str, size_hw: tuple[int, int]) -> Call:
    """Mask R-CNN on ResNet-50 with random weights, in evaluation mode at one size."""
    torch.manual_seed(0)
    model = torchvision.models.detection.maskrcnn_resnet50_fpn_v2(
        weights=None, weights_backbone=None, num_classes=81, min_size=size_hw[0], max_size=max(size_hw)
    )
    model.eval().to(device)
    image = torch.rand(3, *size_hw, device=device)
    small = torch.rand(3, size_hw[0] // 4, size_hw[1] // 4, device=device)
    spread_scores([model.roi_heads.box_predictor.cls_score], lambda: model([small]))
    heads = model.roi_heads
    stages = {
        "backbone": [(model.backbone.body, "forward")],
        "neck": [(model.backbone.fpn, "forward")],
        "rpn": [(model.rpn.head, "forward")],
        "proposals + nms": [(model.rpn, "forward")],
        "roi_align": [(heads.box_roi_pool, "forward"), (heads.mask_roi_pool, "forward")],
        "box head": [(heads.box_head, "forward"), (heads.box_predictor, "forward")],
        "box post-processing": [(heads, "postprocess_detections")],
        "mask head": [(heads.mask_head, "forward"), (heads.mask_predictor, "forward")],
        "pasting + post-processing": [(model.transform, "postprocess")],
    }
    return Call(lambda: model([image]), stages, model)


def transformers_peer(device: str, size_hw: tuple[int, int]) -> Call:
    """Deformable DETR on ResNet-50, two-stage with 900 queries as DINO has, random weights."""
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig

    torch.manual_seed(0)
    config = DeformableDetrConfig(
        backbone_config=ResNetConfig(out_features=["stage2", "stage3", "stage4"]),
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        num_labels=80,
        num_queries=900,
        two_stage=True,
        with_box_refine=True,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
    )
    model = DeformableDetrForObjectDetection(config).eval().to(device)
    pixels = torch.randn(1, 3, *size_hw, device=device)
    stages = {
        "backbone": [(model.model.backbone, "forward")],
        "neck": [(layer, "forward") for layer in model.model.input_proj],
        "encoder": [(model.model.encoder, "forward")],
        "decoder": [(model.model.decoder, "forward")],
    }
    return Call(lambda: model(pixel_values=pixels), stages, model)


def check(name: str, device: str) -> float:
    """Compare a fused detector with the reference backend at a small size; raise when they differ."""
    pixels = torch.randn(2, 3, *CHECK_SIZE, device=device)
    valid_hw = torch.tensor([CHECK_SIZE, (CHECK_SIZE[0] - 20, CHECK_SIZE[1] - 8)], device=device)
    expected, got = (
        _probe(model, pixels, valid_hw) for model in (build(name, device, "reference"), build(name, device).fuse())
    )
    error = max(float((a - b).norm() / b.norm().clamp(min=1e-6)) for a, b in zip(got, expected, strict=True))
    if not error <= 1e-3:
        raise SystemExit(f"correctness check failed: {name} differs from the reference by {error:.2e}")
    return error


def _probe(model: nn.Module, pixels: Tensor, valid_hw: Tensor) -> list[Tensor]:
    """Outputs of every part that do not hang on a choice among near-equal scores."""
    with torch.inference_mode():
        assert isinstance(model, RCNN | DINO)
        maps = model.neck(model.backbone(pixels).maps)
        if isinstance(model, DINO):
            memory = model.encode(maps, valid_hw, pixels)
            reference = torch.rand(2, 30, 4, generator=torch.Generator().manual_seed(1)).to(pixels.device)
            queries = model.transformer.query_embedding.weight[:30].expand(2, -1, -1)
            *_, last = model.refine(queries, reference, memory)
            return [*maps, memory.cells, last.logits, last.boxes]
        outputs = model.rpn(maps)
        corner = torch.rand(40, 2, generator=torch.Generator().manual_seed(1)) * 60
        rois = torch.cat([torch.arange(40)[:, None] % 2, corner, corner * 1.4 + 5], dim=1).to(pixels.device)
        found: list[Tensor] = [*maps, *outputs.logits, *outputs.deltas]
        for head in model.box_heads:
            found += head(model.region_features(maps, rois, model.config.roi_size))
        assert model.config.mask is not None
        cut = model.region_features(maps, rois, model.config.mask.roi_size)
        # A ModuleList, as above.
        return found + [head.of_class(cut, torch.arange(40, device=cut.device)) for head in model.mask_heads]  # pyright: ignore


def run(device: str, *, seconds: float = 60.0, size_hw: tuple[int, int] = SIZE) -> None:
    """Check, measure, print, save and plot."""
    errors = {name: check(name, device) for name in MODELS}
    calls = {name: measured(name, device, size_hw) for name in MODELS}
    calls[PEERS["mask_rcnn internimage_t"]] = torchvision_peer(device, size_hw)
    if importlib.util.find_spec("transformers") is None:
        print("transformers is not installed: no Deformable DETR to compare with")
    else:
        calls[PEERS["dino internimage_t"]] = transformers_peer(device, size_hw)
    with torch.inference_mode():
        times = stage_times(calls, device=device, seconds=seconds)
    found = {name: regions_and_objects(name, call) for name, call in calls.items() if name in MODELS}
    del calls
    rows = [_row(name, times) for name in times]
    for row in rows:
        if row["model"] in MODELS:
            name = row["model"]
            row |= found[name] | {"relative_error": errors[name]}
    print_table(f"detectors on {device}, {size_hw[0]} x {size_hw[1]} float32, milliseconds", rows)
    save("detection", device, rows, size_hw=size_hw, clock=clock(device), notes=__doc__)
    bar_plot(
        "detection",
        device,
        f"Detectors, {size_hw[0]} x {size_hw[1]}, float32, {device}",
        list(times),
        {"backbone and neck": [_sum(times[n], TRUNK) for n in times], "all": [times[n]["total"] for n in times]},
        "milliseconds",
    )


def _row(name: str, times: dict[str, dict[str, float]]) -> dict[str, Any]:
    spent = times[name]
    peer = PEERS.get(name, "")
    return {
        "model": name,
        **{stage: spent.get(stage) for stage in STAGES},
        "share_outside_networks": 1 - _sum(spent, NETWORKS) / spent["total"],
        "share_outside_products": 1 - (_sum(spent, TRUNK) + spent["products"]) / spent["total"],
        "times_the_peer": spent["total"] / times[peer]["total"] if peer in times else None,
        "times_the_peer_behind_the_backbone": _behind(spent) / _behind(times[peer]) if peer in times else None,
    }


def _behind(spent: dict[str, float]) -> float:
    return spent["total"] - spent["backbone"]


def _sum(spent: dict[str, float], stages: tuple[str, ...]) -> float:
    return sum(spent.get(stage, 0.0) for stage in stages)
