"""Detectors by name, for any backbone and any number of classes: the published ones and small ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from internimage.backbones import BackboneConfig
from internimage.detection.config import (
    AssignConfig,
    BoxLossConfig,
    BoxStageConfig,
    DenoisingConfig,
    DINOConfig,
    MaskHeadConfig,
    ProposalConfig,
    RCNNConfig,
    RPNConfig,
    SampleConfig,
)
from internimage.detection.dino.model import DINO
from internimage.detection.model import DetectorConfig
from internimage.detection.rcnn.model import RCNN
from internimage.flow import RunOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

CASCADE_STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
CASCADE_IOUS = (0.5, 0.6, 0.7)
CASCADE_WEIGHTS = (1.0, 0.5, 0.25)


def faster_rcnn(backbone: BackboneConfig, num_classes: int) -> RCNNConfig:
    """Return the settings of a detector with one stage, boxes only."""
    norm = "layer" if backbone.operator == "dcnv4" else "none"
    return RCNNConfig(backbone, num_classes, pyramid_norm=norm)


def mask_rcnn(backbone: BackboneConfig, num_classes: int) -> RCNNConfig:
    """Return the settings of a detector with one stage and masks."""
    return replace(faster_rcnn(backbone, num_classes), mask=MaskHeadConfig())


def cascade_rcnn(backbone: BackboneConfig, num_classes: int) -> RCNNConfig:
    """Return the settings of a cascade of three stages, boxes only, with one regression for all classes."""
    stage = BoxStageConfig(class_agnostic=True, box_loss=BoxLossConfig("smooth_l1"))
    return _cascade(backbone, num_classes, stage)


def cascade_mask_rcnn(backbone: BackboneConfig, num_classes: int) -> RCNNConfig:
    """Return the settings of a cascade of three stages with convolutions in the box heads, and masks."""
    stage = BoxStageConfig(num_convs=4, num_fcs=1, box_loss=BoxLossConfig("giou", weight=10.0))
    return replace(_cascade(backbone, num_classes, stage), mask=MaskHeadConfig())


def _cascade(backbone: BackboneConfig, num_classes: int, stage: BoxStageConfig) -> RCNNConfig:
    """Repeat a stage with ever stricter examples."""
    stages = tuple(
        replace(stage, stds=stds, assign=AssignConfig(iou, iou, iou, match_low_quality=False), loss_weight=weight)
        for stds, iou, weight in zip(CASCADE_STDS, CASCADE_IOUS, CASCADE_WEIGHTS, strict=True)
    )
    rpn = RPNConfig(
        box_loss=BoxLossConfig("smooth_l1", beta=1 / 9), train=ProposalConfig(pre_nms=2000, kept=2000), allowed_border=0
    )
    return replace(faster_rcnn(backbone, num_classes), stages=stages, rpn=rpn)


def mask_rcnn_small(backbone: BackboneConfig, num_classes: int) -> RCNNConfig:
    """Return the settings of a narrow Mask R-CNN for images of 200 to 300 pixels.

    Its anchors are 24 to 192 pixels wide, all but the largest regions are read from the finest map, and its box head
    looks twice, which gained 2 points of box AP in the scenes of `examples/closet`.
    """
    proposals = ProposalConfig(pre_nms=500, kept=200)
    rpn = RPNConfig(
        channels=96, strides=(4, 8, 16, 32), scale=6.0, train=proposals, test=proposals, sample=SampleConfig(128, 0.5)
    )
    stage = BoxStageConfig(
        fc_channels=256, class_agnostic=True, stds=(0.05, 0.05, 0.1, 0.1), sample=SampleConfig(64, 0.25, add_truth=True)
    )
    return replace(
        mask_rcnn(backbone, num_classes),
        channels=96,
        rpn=rpn,
        stages=(stage,),
        last_stage_passes=2,
        mask=MaskHeadConfig(num_convs=3, channels=64),
        roi_finest_scale=112,
        max_per_image=50,
    )


def dino_small(backbone: BackboneConfig, num_classes: int) -> DINOConfig:
    """Return the settings of a narrow DINO with three layers in encoder and decoder and 100 queries."""
    return DINOConfig(
        backbone,
        num_classes,
        channels=128,
        num_queries=100,
        num_encoder_layers=3,
        num_decoder_layers=3,
        num_heads=4,
        feedforward_channels=512,
        denoising=DenoisingConfig(num_queries=50),
        max_per_image=100,
    )


DETECTORS: dict[str, Callable[[BackboneConfig, int], DetectorConfig]] = {
    "faster_rcnn": faster_rcnn,
    "mask_rcnn": mask_rcnn,
    "cascade_rcnn": cascade_rcnn,
    "cascade_mask_rcnn": cascade_mask_rcnn,
    "dino": DINOConfig,
}
SMALL_DETECTORS: dict[str, Callable[[BackboneConfig, int], DetectorConfig]] = {
    "mask_rcnn_small": mask_rcnn_small,
    "dino_small": dino_small,
}


def build_detector(config: DetectorConfig, **run: Unpack[RunOptions]) -> RCNN | DINO:
    """Return the detector that a configuration describes.

    Args:
        config: architecture, preprocessing and class names.
        run: how it runs, see `TaskModel`.

    Example:
        >>> from internimage.backbones import variant
        >>> model = build_detector(mask_rcnn(variant("internimage_pico"), num_classes=3))
        >>> type(model).__name__
        'RCNN'
    """
    return RCNN(config, **run) if isinstance(config, RCNNConfig) else DINO(config, **run)
