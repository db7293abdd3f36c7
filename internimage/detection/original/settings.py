"""Original-style settings of detectors and ours.

The originals describe a detector by nested dictionaries (`backbone`, `neck`, `rpn_head`, `roi_head` or `bbox_head`,
`train_cfg`, `test_cfg`) and a list of steps that images go through (`test_pipeline`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from internimage.backbones.original.settings import backbone_from_settings
from internimage.checkpoints.formats.openmmlab_values import (
    expect,
    inference_steps,
    integer,
    mapping,
    number,
    numbers,
    plain,
)
from internimage.detection import DetectionPreprocess, DINOConfig, RCNNConfig
from internimage.detection.config import (
    AssignConfig,
    BoxLossConfig,
    BoxStageConfig,
    MaskHeadConfig,
    ProposalConfig,
    RPNConfig,
    SampleConfig,
)
from internimage.detection.original.settings_dino import DINO_TYPES, dino_from_settings

RCNN_TYPES = ("FasterRCNN", "MaskRCNN", "CascadeRCNN")
BOX_HEADS = ("Shared2FCBBoxHead", "ConvFCBBoxHead", "DCNv4FCBBoxHead")
LOSS_KINDS: dict[str, Literal["l1", "smooth_l1", "giou"]] = {
    "L1Loss": "l1",
    "SmoothL1Loss": "smooth_l1",
    "GIoULoss": "giou",
}
CODER = {"target_means": [0.0, 0.0, 0.0, 0.0], "add_ctr_clamp": False, "clip_border": True}
ASSIGNER = {"ignore_iof_thr": -1, "gt_max_assign_all": True}
MASK_SIDE = 28


def detector_from_settings(
    settings: Mapping[str, Any],
    *,
    test_pipeline: Sequence[Mapping[str, Any]] | None = None,
    class_names: tuple[str, ...] | None = None,
) -> RCNNConfig | DINOConfig:
    """Return the detector that original settings describe.

    Args:
        settings: the original's model dictionary, or a whole configuration with it under "model".
        test_pipeline: the steps that images go through; None takes those of a whole configuration, or the default.
        class_names: names of the classes.

    Raises:
        ValueError: a setting is missing or not supported; the message says which.
    """
    model = settings["model"] if isinstance(settings.get("model"), Mapping) else settings
    pipeline = test_pipeline if test_pipeline is not None else settings.get("test_pipeline")
    preprocess = preprocess_from_pipeline(pipeline)
    if model.get("type") in DINO_TYPES:
        return dino_from_settings(model, preprocess=preprocess, class_names=class_names)
    expect(model, "model", {}, (*RCNN_TYPES, *DINO_TYPES))
    backbone = backbone_from_settings(mapping(model, "backbone"))
    train, test = model.get("train_cfg") or {}, model.get("test_cfg") or {}
    neck, roi_head = mapping(model, "neck"), mapping(model, "roi_head")
    rpn = _rpn(mapping(model, "rpn_head"), train, test)
    expect(neck, "neck", {"use_residual": True, "in_channels": list(backbone.widths)}, ("FPN", "FPN_vitdet"))
    expect(
        neck, "neck", {"num_outs": len(rpn.strides), "out_channels": integer(mapping(model, "rpn_head"), "in_channels")}
    )
    norm = neck.get("norm_cfg")
    if norm is not None:
        expect(norm, "neck.norm_cfg", {}, ("LN",))
    stages = _stages(roi_head, train)
    final = test.get("rcnn") or {}
    mask = None if roi_head.get("mask_head") is None else _mask(roi_head, final)
    return RCNNConfig(
        backbone=backbone,
        num_classes=integer(_all(roi_head, "bbox_head")[0], "num_classes"),
        channels=integer(neck, "out_channels"),
        pyramid_norm="none" if norm is None else "layer",
        rpn=rpn,
        stages=stages,
        mask=mask,
        roi_size=_roi_size(roi_head, "bbox_roi_extractor"),
        score_threshold=number(final, "score_thr", 0.05),
        nms_iou=number(final.get("nms") or {}, "iou_threshold", 0.5),
        max_per_image=integer(final, "max_per_img", 100),
        preprocess=preprocess,
        class_names=class_names,
    )


def preprocess_from_pipeline(test_pipeline: Sequence[Mapping[str, Any]] | None) -> DetectionPreprocess:
    """Return how images become pixels, by the original's steps or (None) by default.

    Raises:
        ValueError: a step is not supported.
    """
    if test_pipeline is None:
        return DetectionPreprocess()
    augment, steps = inference_steps(test_pipeline)
    sides = numbers(augment, "img_scale", 2)
    values: dict[str, Any] = {"shorter_side": int(min(sides)), "longer_side": int(max(sides)), "divisor": 1}
    if "Normalize" in steps:
        values |= {name: numbers(steps["Normalize"], name, 3) for name in ("mean", "std")}
    if "Pad" in steps:
        values["divisor"] = integer(steps["Pad"], "size_divisor")
    return DetectionPreprocess(**values)


def _rpn(head: Mapping[str, Any], train: Mapping[str, Any], test: Mapping[str, Any]) -> RPNConfig:
    """Read the region proposal network and how it is trained."""
    expect(head, "rpn_head", {}, ("RPNHead",))
    anchors, coder = mapping(head, "anchor_generator"), mapping(head, "bbox_coder")
    expect(anchors, "anchor_generator", {"center_offset": 0.0}, ("AnchorGenerator",))
    expect(coder, "rpn_head.bbox_coder", {**CODER, "target_stds": [1.0] * 4}, ("DeltaXYWHBBoxCoder",))
    defaults = RPNConfig()
    own = train.get("rpn") or {}
    proposals = train.get("rpn_proposal") or test.get("rpn") or {}
    return RPNConfig(
        channels=integer(head, "feat_channels"),
        strides=tuple(int(s) for s in numbers(anchors, "strides")),
        scale=numbers(anchors, "scales", 1)[0],
        ratios=numbers(anchors, "ratios"),
        box_loss=_box_loss(mapping(head, "loss_bbox")),
        test=_proposals(test.get("rpn") or {}),
        train=_proposals(proposals),
        assign=_assign(own["assigner"]) if "assigner" in own else defaults.assign,
        sample=_sample(own["sampler"]) if "sampler" in own else defaults.sample,
        allowed_border=integer(own, "allowed_border", -1),
    )


def _proposals(values: Mapping[str, Any]) -> ProposalConfig:
    nms = values.get("nms") or {}
    return ProposalConfig(
        pre_nms=integer(values, "nms_pre", 1000),
        kept=integer(values, "max_per_img", 1000),
        nms_iou=number(nms, "iou_threshold", 0.7),
        min_size=number(values, "min_bbox_size", 0.0),
    )


def _assign(values: Mapping[str, Any]) -> AssignConfig:
    expect(values, "assigner", ASSIGNER, ("MaxIoUAssigner",))
    return AssignConfig(
        positive_iou=number(values, "pos_iou_thr", 0.5),
        negative_iou=number(values, "neg_iou_thr", 0.5),
        min_positive_iou=number(values, "min_pos_iou", 0.0),
        match_low_quality=bool(values.get("match_low_quality", True)),
    )


def _sample(values: Mapping[str, Any]) -> SampleConfig:
    expect(values, "sampler", {"neg_pos_ub": -1}, ("RandomSampler",))
    return SampleConfig(
        number=integer(values, "num"),
        positive_fraction=number(values, "pos_fraction", 0.5),
        add_truth=bool(values.get("add_gt_as_proposals", True)),
    )


def _box_loss(values: Mapping[str, Any]) -> BoxLossConfig:
    expect(values, "loss_bbox", {"reduction": "mean"}, tuple(LOSS_KINDS))
    return BoxLossConfig(
        kind=LOSS_KINDS[values["type"]], weight=number(values, "loss_weight", 1.0), beta=number(values, "beta", 1.0)
    )


def _stages(roi_head: Mapping[str, Any], train: Mapping[str, Any]) -> tuple[BoxStageConfig, ...]:
    """Read the box stages."""
    expect(roi_head, "roi_head", {}, ("StandardRoIHead", "CascadeRoIHead"))
    heads = _all(roi_head, "bbox_head")
    weights = plain(roi_head.get("stage_loss_weights") or [1.0] * len(heads))
    examples = _all(train, "rcnn") if train.get("rcnn") else [None] * len(heads)
    expect(roi_head, "roi_head", {"num_stages": len(heads)})
    if not len(heads) == len(weights) == len(examples):
        raise ValueError(
            f"bbox_head, stage_loss_weights and train_cfg.rcnn must have one entry per stage, given {len(heads)}, "
            f"{len(weights)} and {len(examples)}"
        )
    return tuple(_stage(head, own, float(w)) for head, own, w in zip(heads, examples, weights, strict=True))


def _stage(head: Mapping[str, Any], examples: Mapping[str, Any] | None, loss_weight: float) -> BoxStageConfig:
    expect(head, "bbox_head", {"with_dcn": False, "num_cls_convs": 0, "num_reg_convs": 0}, BOX_HEADS)
    coder, loss = mapping(head, "bbox_coder"), _box_loss(mapping(head, "loss_bbox"))
    expect(coder, "bbox_coder", CODER, ("DeltaXYWHBBoxCoder",))
    expect(head, "bbox_head", {"reg_decoded_bbox": loss.kind == "giou"} if "reg_decoded_bbox" in head else {})
    is_shared = head["type"] == "Shared2FCBBoxHead"
    num_convs = 0 if is_shared else integer(head, "num_shared_convs", 0)
    if num_convs:
        expect(mapping(head, "norm_cfg"), "bbox_head.norm_cfg", {}, ("BN", "SyncBN"))
    stds = numbers(coder, "target_stds", 4)
    defaults = BoxStageConfig()
    return BoxStageConfig(
        num_convs=num_convs,
        conv_channels=integer(head, "conv_out_channels", 256),
        num_fcs=2 if is_shared else integer(head, "num_shared_fcs", 0),
        fc_channels=integer(head, "fc_out_channels", 1024),
        class_agnostic=bool(head.get("reg_class_agnostic", False)),
        stds=(stds[0], stds[1], stds[2], stds[3]),
        box_loss=loss,
        assign=defaults.assign if examples is None else _assign(mapping(examples, "assigner")),
        sample=defaults.sample if examples is None else _sample(mapping(examples, "sampler")),
        loss_weight=loss_weight,
    )


def _mask(roi_head: Mapping[str, Any], final: Mapping[str, Any]) -> MaskHeadConfig:
    head = _all(roi_head, "mask_head")[0]
    expect(head, "mask_head", {"conv_kernel_size": 3, "class_agnostic": False}, ("FCNMaskHead",))
    return MaskHeadConfig(
        num_convs=integer(head, "num_convs", 4),
        channels=integer(head, "conv_out_channels", 256),
        roi_size=_roi_size(roi_head, "mask_roi_extractor"),
        threshold=number(final, "mask_thr_binary", 0.5),
    )


def _roi_size(roi_head: Mapping[str, Any], name: str) -> int:
    extractor = _all(roi_head, name)[0]
    layer = mapping(extractor, "roi_layer")
    expect(extractor, name, {"finest_scale": 56}, ("SingleRoIExtractor",))
    expect(layer, f"{name}.roi_layer", {"sampling_ratio": 0, "aligned": True}, ("RoIAlign",))
    return integer(layer, "output_size")


def _all(values: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return a dictionary, or a list of them, as a list."""
    value = values.get(name)
    entries: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    found = [entry for entry in entries if isinstance(entry, Mapping)]
    if not found or len(found) < len(entries):
        raise ValueError(f"the settings lack {name!r}, a dictionary or a list of them; given {value!r}")
    return found
