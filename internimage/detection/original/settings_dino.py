"""Original-style settings of DINO and ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from internimage.backbones.original.settings import backbone_from_settings
from internimage.checkpoints.formats.openmmlab_values import expect, integer, mapping, number
from internimage.detection import DetectionPreprocess, DINOConfig
from internimage.detection.config import DenoisingConfig, SetLossConfig

DINO_TYPES = ("DINO", "CBDINO")
HEAD = {"as_two_stage": True, "with_box_refine": True}
ENCODER_ORDER = ["self_attn", "norm", "ffn", "norm"]
DECODER_ORDER = ["self_attn", "norm", "cross_attn", "norm", "ffn", "norm"]
SLICED_FFN, SLICES = "EfficientFFN", 4
FOCAL = {"use_sigmoid": True, "gamma": 2.0, "alpha": 0.25}


def dino_from_settings(
    model: Mapping[str, Any], *, preprocess: DetectionPreprocess, class_names: tuple[str, ...] | None
) -> DINOConfig:
    """Return the DINO that an original model dictionary describes.

    Raises:
        ValueError: a setting is missing or not supported; the message says which.
    """
    is_composite = model["type"] == "CBDINO"
    backbone = backbone_from_settings(mapping(model, "backbone"))
    neck, head = mapping(model, "neck"), mapping(model, "bbox_head")
    transformer = mapping(head, "transformer")
    encoder, decoder = mapping(transformer, "encoder"), mapping(transformer, "decoder")
    first, second = (mapping(part, "transformerlayers") for part in (encoder, decoder))
    channels, num_queries = integer(neck, "out_channels"), integer(head, "num_query")
    types = ("CBChannelMapper",) if is_composite else ("ChannelMapper",)
    expect(neck, "neck", {"in_channels": list(backbone.widths[1:]), "kernel_size": 1, "act_cfg": None}, types)
    expect(mapping(neck, "norm_cfg"), "neck.norm_cfg", {"num_groups": 32}, ("GN",))
    expect(head, "bbox_head", HEAD, ("CBDINOHead",) if is_composite else ("DINOHead",))
    expect(transformer, "transformer", {"two_stage_num_proposals": num_queries}, ("DinoTransformer",))
    expect(first, "encoder", {"operation_order": ENCODER_ORDER})
    expect(second, "decoder", {"operation_order": DECODER_ORDER})
    self_attention, attention = second["attn_cfgs"]
    num_levels, heads = integer(neck, "num_outs"), integer(self_attention, "num_heads", 8)
    for part in (mapping(first, "attn_cfgs"), attention):
        fixed = {"embed_dims": channels, "dropout": 0.0, "num_levels": num_levels, "num_heads": heads}
        expect(part, "attention", fixed, ("MultiScaleDeformableAttention",))
    position = mapping(head, "positional_encoding")
    fixed = {"num_feats": channels // 2, "normalize": True, "offset": 0.0}
    expect(position, "positional_encoding", fixed, ("SinePositionalEncoding",))
    return DINOConfig(
        backbone=backbone,
        num_classes=integer(head, "num_classes"),
        num_backbones=2 if is_composite else 1,
        channels=channels,
        num_levels=num_levels,
        num_queries=num_queries,
        num_encoder_layers=integer(encoder, "num_layers"),
        num_decoder_layers=integer(decoder, "num_layers"),
        num_heads=heads,
        num_points=integer(attention, "num_points", 4),
        feedforward_channels=integer(first, "feedforward_channels"),
        feedforward_slices=_slices(first, second),
        position_temperature=number(position, "temperature", 10000.0),
        denoising=_denoising(head),
        set_loss=_set_loss(head, model.get("train_cfg") or {}),
        max_per_image=integer(model.get("test_cfg") or {}, "max_per_img", 100),
        preprocess=preprocess,
        class_names=class_names,
    )


def _slices(encoder_layer: Mapping[str, Any], decoder_layer: Mapping[str, Any]) -> int:
    """Tell into how many pieces the hidden layers are cut."""
    kinds = [(layer.get("ffn_cfgs") or {}).get("type", "FFN") for layer in (encoder_layer, decoder_layer)]
    if kinds[0] != kinds[1] or kinds[0] not in ("FFN", SLICED_FFN):
        raise ValueError(f"ffn_cfgs.type must be FFN or {SLICED_FFN} in encoder and decoder, given {kinds}")
    return SLICES if kinds[0] == SLICED_FFN else 1


def _denoising(head: Mapping[str, Any]) -> DenoisingConfig:
    values = head.get("dn_cfg")
    if values is None:
        return DenoisingConfig()
    noise, groups = mapping(values, "noise_scale"), mapping(values, "group_cfg")
    expect(groups, "group_cfg", {"dynamic": True})
    return DenoisingConfig(
        num_queries=integer(groups, "num_dn_queries"),
        label_noise=number(noise, "label", 0.0),
        box_noise=number(noise, "box", 0.0),
    )


def _set_loss(head: Mapping[str, Any], train: Mapping[str, Any]) -> SetLossConfig:
    expect(mapping(head, "loss_cls"), "loss_cls", FOCAL, ("FocalLoss",))
    expect(mapping(head, "loss_bbox"), "loss_bbox", {}, ("L1Loss",))
    expect(mapping(head, "loss_iou"), "loss_iou", {}, ("GIoULoss",))
    assigner = train.get("assigner") or {}
    costs = {name: assigner.get(f"{name}_cost") or {} for name in ("cls", "reg", "iou")}
    expect(costs["reg"], "reg_cost", {"box_format": "xywh"})
    expect(costs["iou"], "iou_cost", {"iou_mode": "giou"})
    return SetLossConfig(
        class_cost=number(costs["cls"], "weight", 2.0),
        box_cost=number(costs["reg"], "weight", 5.0),
        iou_cost=number(costs["iou"], "weight", 2.0),
        class_weight=number(mapping(head, "loss_cls"), "loss_weight", 1.0),
        box_weight=number(mapping(head, "loss_bbox"), "loss_weight", 1.0),
        iou_weight=number(mapping(head, "loss_iou"), "loss_weight", 1.0),
    )
