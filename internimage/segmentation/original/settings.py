"""Original-style settings of segmentors and ours.

The originals describe a segmentor by nested dictionaries (`backbone`, `decode_head`, `auxiliary_head`, `test_cfg`) and
a list of steps that images go through (`test_pipeline`). What this package does not do is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from internimage.backbones.original.settings import backbone_from_settings
from internimage.checkpoints.formats.openmmlab_values import (
    expect,
    inference_steps,
    integer,
    mapping,
    number,
    numbers,
    plain,
    whole_pair,
)
from internimage.segmentation import (
    Mask2FormerConfig,
    SegFormerConfig,
    SegmentationPreprocess,
    SegmentorConfig,
    SlidingWindow,
    UperNetConfig,
)
from internimage.segmentation.config import HeadConfig
from internimage.types import Palette

LEVELS = [0, 1, 2, 3]
MODELS = ("EncoderDecoder", "EncoderDecoderMask2Former", "EncoderDecoderMask2FormerAug")
# Settings of a dense head that have one supported value.
DENSE_FIXED: dict[str, Any] = {"align_corners": False, "in_index": LEVELS}
DENSE_LOSS = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0, "avg_non_ignore": False}
AUXILIARY_FIXED: dict[str, Any] = {"align_corners": False, "in_index": 2, "num_convs": 1, "concat_input": False}
MASK2FORMER_FIXED: dict[str, Any] = {
    "in_index": LEVELS,
    "num_transformer_feat_level": 3,
    "enforce_decoder_input_project": False,
}
ENCODER_ORDER = ["self_attn", "norm", "ffn", "norm"]
DECODER_ORDER = ["cross_attn", "norm", "self_attn", "norm", "ffn", "norm"]
ATTENTION = ("MultiScaleDeformableAttention", "CustomMultiScaleDeformableAttention")


def segmentor_from_settings(
    settings: Mapping[str, Any],
    *,
    test_pipeline: Sequence[Mapping[str, Any]] | None = None,
    class_names: tuple[str, ...] | None = None,
    palette: Palette | None = None,
) -> SegmentorConfig:
    """Return the segmentor that original settings describe.

    Args:
        settings: the original's model dictionary, or a whole configuration with it under "model".
        test_pipeline: the steps that images go through; None takes those of a whole configuration, or the default.
        class_names: names of the classes; fewer than the outputs of the head leave the surplus unanswered.
        palette: colors of the classes.

    Raises:
        ValueError: a setting is missing or not supported; the message says which.
    """
    model = settings["model"] if isinstance(settings.get("model"), Mapping) else settings
    expect(model, "model", {}, MODELS)
    backbone = backbone_from_settings(mapping(model, "backbone"))
    decode_head = mapping(model, "decode_head")
    expect(decode_head, "decode_head", {"in_channels": list(backbone.widths)})
    rows = integer(decode_head, "num_classes")
    num_classes = rows if class_names is None else len(class_names)
    pipeline = test_pipeline if test_pipeline is not None else settings.get("test_pipeline")
    test_cfg = model.get("test_cfg") or {}
    return SegmentorConfig(
        backbone=backbone,
        num_classes=num_classes,
        head=_head(decode_head, model),
        preprocess=preprocess_from_pipeline(pipeline, test_cfg),
        class_names=class_names,
        palette=palette,
        classifier_rows=None if rows == num_classes else rows,
    )


def preprocess_from_pipeline(
    test_pipeline: Sequence[Mapping[str, Any]] | None, test_cfg: Mapping[str, Any]
) -> SegmentationPreprocess:
    """Return how images become pixels, by the original's steps or (None) by default; `test_cfg` tells of windows.

    Raises:
        ValueError: a step is not supported.
    """
    window = None
    mode = test_cfg.get("mode", "whole")
    if mode == "slide":
        window = SlidingWindow(whole_pair(test_cfg, "crop_size"), whole_pair(test_cfg, "stride"))
    elif mode != "whole":
        raise ValueError(f"test_cfg.mode must be 'whole' or 'slide', given {mode!r}")
    if test_pipeline is None:
        return SegmentationPreprocess(window=window)
    augment, steps = inference_steps(test_pipeline)
    found: dict[str, Any] = {"scale": whole_pair(augment, "img_scale")}
    if "ResizeToMultiple" in steps:
        found["multiple"] = integer(steps["ResizeToMultiple"], "size_divisor")
    if "Normalize" in steps:
        norm = steps["Normalize"]
        found |= {name: tuple(value / 255.0 for value in numbers(norm, name, 3)) for name in ("mean", "std")}
    return SegmentationPreprocess(window=window, **found)


def _head(decode_head: Mapping[str, Any], model: Mapping[str, Any]) -> HeadConfig:
    """Return the settings of the head and of the auxiliary head beside it."""
    kind = decode_head.get("type")
    auxiliary = model.get("auxiliary_head")
    if kind == "UPerHead":
        return _upernet(decode_head, auxiliary)
    if auxiliary is not None:
        raise ValueError(f"auxiliary_head is supported beside UPerHead only, given {kind!r}")
    if kind == "SegformerHead":
        expect(decode_head, "decode_head", DENSE_FIXED)
        count_ignored = _dense_loss(decode_head)
        channels, dropout = integer(decode_head, "channels"), number(decode_head, "dropout_ratio", 0.1)
        return SegFormerConfig(channels=channels, dropout=dropout, count_ignored_pixels=count_ignored)
    if kind == "Mask2FormerHead":
        return _mask2former(decode_head, model.get("train_cfg") or {})
    raise ValueError(f"decode_head.type must be UPerHead, SegformerHead or Mask2FormerHead, given {kind!r}")


def _upernet(decode_head: Mapping[str, Any], auxiliary: Mapping[str, Any] | None) -> UperNetConfig:
    expect(decode_head, "decode_head", DENSE_FIXED)
    dropout = number(decode_head, "dropout_ratio", 0.1)
    weight = 0.4
    if auxiliary is not None:
        expect(auxiliary, "auxiliary_head", {**AUXILIARY_FIXED, "dropout_ratio": dropout}, ("FCNHead",))
        weight = number(mapping(auxiliary, "loss_decode"), "loss_weight", 1.0)
    return UperNetConfig(
        channels=integer(decode_head, "channels"),
        pool_scales=tuple(plain(decode_head.get("pool_scales", (1, 2, 3, 6)))),
        dropout=dropout,
        auxiliary_channels=None if auxiliary is None else integer(auxiliary, "channels"),
        auxiliary_weight=weight,
        count_ignored_pixels=_dense_loss(decode_head),
    )


def _dense_loss(decode_head: Mapping[str, Any]) -> bool:
    """Check the loss of a dense head; return whether ignored pixels count in its mean."""
    loss = decode_head.get("loss_decode") or {}
    expect(loss, "loss_decode", {k: v for k, v in DENSE_LOSS.items() if k != "avg_non_ignore"})
    return not loss.get("avg_non_ignore", False)


def _mask2former(decode_head: Mapping[str, Any], train_cfg: Mapping[str, Any]) -> Mask2FormerConfig:
    expect(decode_head, "decode_head", MASK2FORMER_FIXED)
    channels = integer(decode_head, "feat_channels")
    encoder = mapping(mapping(decode_head, "pixel_decoder"), "encoder")
    encoder_layer = mapping(encoder, "transformerlayers")
    attention = mapping(encoder_layer, "attn_cfgs")
    decoder = mapping(decode_head, "transformer_decoder")
    decoder_layer = mapping(decoder, "transformerlayers")
    heads = integer(attention, "num_heads")
    expect(decode_head, "decode_head", {"out_channels": channels})
    expect(encoder_layer, "encoder", {"operation_order": ENCODER_ORDER})
    expect(attention, "encoder attention", {"embed_dims": channels, "num_levels": 3}, ATTENTION)
    expect(decoder_layer, "decoder", {"operation_order": DECODER_ORDER})
    expect(mapping(decoder_layer, "attn_cfgs"), "decoder attention", {"embed_dims": channels, "num_heads": heads})
    losses = {name: decode_head.get(f"loss_{name}") or {} for name in ("cls", "mask", "dice")}
    weights = {name: number(loss, "loss_weight", 1.0) for name, loss in losses.items()}
    class_weight = numbers(losses["cls"], "class_weight") if losses["cls"].get("class_weight") else (0.1,)
    return Mask2FormerConfig(
        channels=channels,
        num_queries=integer(decode_head, "num_queries"),
        num_heads=heads,
        encoder_layers=integer(encoder, "num_layers"),
        encoder_hidden_channels=integer(mapping(encoder_layer, "ffn_cfgs"), "feedforward_channels"),
        encoder_points=integer(attention, "num_points"),
        encoder_softmax=bool(attention.get("use_softmax", True)),
        decoder_layers=integer(decoder, "num_layers"),
        decoder_hidden_channels=integer(mapping(decoder_layer, "ffn_cfgs"), "feedforward_channels"),
        loss_points=integer(train_cfg, "num_points", 12544),
        oversample_ratio=number(train_cfg, "oversample_ratio", 3.0),
        importance_ratio=number(train_cfg, "importance_sample_ratio", 0.75),
        class_weight=weights["cls"],
        mask_weight=weights["mask"],
        dice_weight=weights["dice"],
        no_object_weight=class_weight[-1],
    )
