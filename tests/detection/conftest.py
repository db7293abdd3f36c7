"""Small detectors and images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from internimage.backbones import variant
from internimage.detection import DETECTORS, DINO, RCNN, DetectionPreprocess, DINOConfig, RCNNConfig, build_detector
from internimage.types import DetectionTargets, Images

SMALL = DetectionPreprocess(shorter_side=64, longer_side=96)
NAMES = ("cat", "dog", "bird")


def small_config(name: str) -> RCNNConfig | DINOConfig:
    config = DETECTORS[name](variant("internimage_pico"), 3)
    channels = 64 if name == "dino" else 32  # group norms need more than one channel in a group
    shared = dict(channels=channels, preprocess=SMALL, class_names=NAMES)
    if isinstance(config, DINOConfig):
        return replace(config, num_queries=20, feedforward_channels=64, max_per_image=10, **shared)
    stages = tuple(replace(stage, conv_channels=16, fc_channels=32) for stage in config.stages)
    mask = None if config.mask is None else replace(config.mask, num_convs=1, channels=16)
    return replace(config, rpn=replace(config.rpn, channels=32), stages=stages, mask=mask, **shared)


def small_detector(name: str) -> RCNN | DINO:
    """A fresh detector that reports something: its classifiers are not sure of the background."""
    torch.manual_seed(0)
    model = build_detector(small_config(name))
    with torch.no_grad():
        for head in getattr(model, "box_heads", []):
            head.classifier.weight.normal_(std=0.5)
            head.regressor.weight.normal_(std=0.05)
    return model.eval()


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


@pytest.fixture
def training_batch() -> tuple[Images, list[DetectionTargets]]:
    pixels = torch.randn(2, 3, 64, 96)
    boxes = torch.tensor([[4.0, 6, 40, 50], [50, 8, 90, 60]])
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    full = DetectionTargets(boxes, torch.tensor([0, 2]), masks)
    empty = DetectionTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 64, 96))
    return Images(pixels, torch.tensor([[64, 96], [60, 80]]), ((64, 96), (60, 80))), [full, empty]
