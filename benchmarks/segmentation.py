"""Segmentors at 512 x 512, by stage, beside transformers' UperNet and Mask2Former.

All weights are random. The published Mask2Former of size S has 200 queries and feed-forward parts twice as wide as the
other; "mask2former internimage_t" has the head of the other package's model, for a fair comparison.

Run: `python -m benchmarks.run --only segmentation`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.record import bar_plot, print_table, save
from benchmarks.stages import Call, Stages, clock, stage_times
from internimage.backbones import variant
from internimage.cli.measuring.models import scatter_samples
from internimage.segmentation.config import HEADS
from internimage.segmentation.mask2former.network import Mask2FormerHead
from internimage.segmentation.model import Segmentor, SegmentorConfig
from internimage.types import Images

SIZE = (512, 512)
CHECK_SIZE = (96, 128)
CLASSES = 150
MODELS = {
    "upernet internimage_t": ("upernet", "internimage_t"),
    "mask2former internimage_t": ("mask2former", "internimage_t"),
    "mask2former flash_internimage_s": ("mask2former_flash", "flash_internimage_s"),
}
PEERS = {
    "upernet internimage_t": "transformers upernet convnext_tiny",
    "mask2former internimage_t": "transformers mask2former swin_tiny",
}
STAGES = ("backbone", "pixel decoder", "head", "resize + argmax", "rest", "total")


def build(name: str, device: str, backend: str = "auto") -> Segmentor:
    """Return a segmentor with random weights whose samples are scattered."""
    torch.manual_seed(0)
    architecture, backbone = MODELS[name]
    model = Segmentor(SegmentorConfig(variant(backbone), CLASSES, head=HEADS[architecture]), backend=backend).eval()
    scatter_samples(model)
    return model.to(device)


def measured(name: str, device: str, size_hw: tuple[int, int]) -> Call:
    """Return what is measured: forward and post-processing of one image."""
    model = build(name, device).fuse()
    batch = Images(torch.randn(1, 3, *size_hw, device=device), torch.tensor([size_hw]), (size_hw,))
    stages: dict[str, Any] = {
        "backbone": [(model.backbone, "forward")],
        "head": [(model.head, "forward")],
        "resize + argmax": [(model, "postprocess")],
    }
    if isinstance(model.head, Mask2FormerHead):
        stages["pixel decoder"] = [(model.head.pixel_decoder, "forward")]
    return Call(lambda: model.postprocess(model.run(batch), batch), stages, model)


def predicting(name: str, device: str, size_hw: tuple[int, int]) -> Callable[[], object]:
    """Return the function of `measured`, for a process of its own."""
    return measured(name, device, size_hw).run


def upernet_peer(device: str, size_hw: tuple[int, int]) -> Call:
    """UperNet on ConvNeXt-T with random weights; it enlarges the logits itself, so that argmax is what remains."""
    from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

    torch.manual_seed(0)
    backbone = ConvNextConfig(
        hidden_sizes=[96, 192, 384, 768], depths=[3, 3, 9, 3], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = UperNetConfig(backbone_config=backbone, hidden_size=512, num_labels=CLASSES, use_auxiliary_head=False)
    model = UperNetForSemanticSegmentation(config).eval().to(device)
    pixels = torch.randn(1, 3, *size_hw, device=device)
    stages: Stages = {"backbone": [(model.backbone, "forward")], "head": [(model.decode_head, "forward")]}
    return Call(lambda: model(pixel_values=pixels).logits.argmax(dim=1), stages, model)


def mask2former_peer(device: str, size_hw: tuple[int, int]) -> Call:
    """Mask2Former on Swin-T with random weights and the post-processing of its image processor."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    torch.manual_seed(0)
    model = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(num_labels=CLASSES))
    model.eval().to(device)
    pixels = torch.randn(1, 3, *size_hw, device=device)

    def predict() -> torch.Tensor:
        outputs = model(pixel_values=pixels)
        masks = F.interpolate(outputs.masks_queries_logits, size=(384, 384), mode="bilinear", align_corners=False)
        classes = outputs.class_queries_logits.softmax(dim=-1)[..., :-1]
        scores = torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid())
        return F.interpolate(scores, size=size_hw, mode="bilinear", align_corners=False).argmax(dim=1)

    level = model.model.pixel_level_module
    stages: Stages = {
        "backbone": [(level.encoder, "forward")],
        "pixel decoder": [(level.decoder, "forward")],
        "head": [(model.model.transformer_module, "forward")],
    }
    return Call(predict, stages, model)


def check(name: str, device: str) -> dict[str, float]:
    """Compare a fused segmentor with the reference backend and a plain resize; raise when they differ."""
    pixels = torch.randn(1, 3, *CHECK_SIZE, device=device)
    batch = Images(pixels, torch.tensor([CHECK_SIZE]), (CHECK_SIZE,))
    reference, model = build(name, device, "reference"), build(name, device).fuse()
    with torch.inference_mode():
        expected, got = reference(pixels), model(pixels)
        [scene] = model.postprocess(model.run(batch), batch)
        labels = F.interpolate(expected, size=CHECK_SIZE, mode="bilinear", align_corners=False).argmax(dim=1)
    error = float((got - expected).norm() / expected.norm())
    same = float((scene.label_map == labels[0].cpu()).float().mean())
    if not (error <= 1e-3 and same >= 0.99):
        raise SystemExit(
            f"correctness check failed: {name} scores differ by {error:.2e}, {same:.2%} of labels are equal"
        )
    return {"relative_error": error, "equal_labels": same}


def run(device: str, *, seconds: float = 40.0, size_hw: tuple[int, int] = SIZE) -> None:
    """Check, measure, print, save and plot."""
    errors = {name: check(name, device) for name in MODELS}
    calls = {name: measured(name, device, size_hw) for name in MODELS}
    if importlib.util.find_spec("transformers") is None:
        print("transformers is not installed: nothing to compare with")
    else:
        calls[PEERS["upernet internimage_t"]] = upernet_peer(device, size_hw)
        calls[PEERS["mask2former internimage_t"]] = mask2former_peer(device, size_hw)
    with torch.inference_mode():
        times = stage_times(calls, device=device, seconds=seconds)
    del calls
    rows = []
    for name, spent in times.items():
        peer = times.get(PEERS.get(name, ""))
        row: dict[str, Any] = {
            "model": name,
            **{stage: spent.get(stage) for stage in STAGES},
            "share_of_resize_and_argmax": spent["resize + argmax"] / spent["total"] if name in MODELS else None,
            "times_the_peer": spent["total"] / peer["total"] if peer else None,
        }
        if name in MODELS:
            row |= errors[name]
        rows.append(row)
    print_table(f"segmentors on {device}, {size_hw[0]} x {size_hw[1]} float32, milliseconds", rows)
    save("segmentation", device, rows, size_hw=size_hw, clock=clock(device), notes=__doc__)
    bar_plot(
        "segmentation",
        device,
        f"Segmentors, {size_hw[0]} x {size_hw[1]}, float32, {device}",
        list(times),
        {"backbone": [spent["backbone"] for spent in times.values()], "all": [s["total"] for s in times.values()]},
        "milliseconds",
    )
