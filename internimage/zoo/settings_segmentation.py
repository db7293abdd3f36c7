"""Original-style settings of segmentors and ours.

The originals describe a segmentor by nested dictionaries (`backbone`, `decode_head`, `auxiliary_head`, `test_cfg`) and
a list of steps that pictures go through (`test_pipeline`). What this package does not do is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from internimage.segmentation import (
    Mask2FormerConfig,
    PreprocessConfig,
    SegFormerConfig,
    SegmentorConfig,
    SlidingWindow,
    UperNetConfig,
)
from internimage.segmentation.model import HeadConfig
from internimage.types import Palette
from internimage.zoo.settings import backbone_from_settings

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
        test_pipeline: the steps that pictures go through; None takes those of a whole configuration, or the default.
        class_names: names of the classes; fewer than the outputs of the head leave the surplus unanswered.
        palette: colors of the classes.

    Raises:
        ValueError: a setting is missing or not supported; the message says which.
    """
    model = settings["model"] if isinstance(settings.get("model"), Mapping) else settings
    _expect(model, "model", {}, MODELS)
    backbone = backbone_from_settings(_mapping(model, "backbone"))
    decode_head = _mapping(model, "decode_head")
    if list(_get(decode_head, "in_channels", list(backbone.widths))) != list(backbone.widths):
        raise ValueError(f"decode_head.in_channels must be {list(backbone.widths)}, given {decode_head['in_channels']}")
    rows = _integer(decode_head, "num_classes")
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
) -> PreprocessConfig:
    """Return how pictures become pixels.

    Args:
        test_pipeline: original steps, or None for the default.
        test_cfg: the original's "test_cfg", which says whether windows are cut.

    Raises:
        ValueError: a step is not supported.
    """
    window = None
    mode = test_cfg.get("mode", "whole")
    if mode == "slide":
        window = SlidingWindow(_pair(test_cfg, "crop_size"), _pair(test_cfg, "stride"))
    elif mode != "whole":
        raise ValueError(f"test_cfg.mode must be 'whole' or 'slide', given {mode!r}")
    if test_pipeline is None:
        return PreprocessConfig(window=window)
    augment = next((step for step in test_pipeline if step.get("type") == "MultiScaleFlipAug"), None)
    if augment is None:
        raise ValueError("test_pipeline has no step MultiScaleFlipAug, which holds the size of the input")
    multiple, mean, std = 1, None, None
    for step in augment["transforms"]:
        if step["type"] == "ResizeToMultiple":
            multiple = _integer(step, "size_divisor")
        elif step["type"] == "Normalize":
            if not step.get("to_rgb", True):
                raise ValueError("Normalize.to_rgb must be True, given False")
            mean, std = (tuple(float(v) / 255.0 for v in step[name]) for name in ("mean", "std"))
        elif step["type"] == "Resize" and not step.get("keep_ratio", True):
            raise ValueError("Resize.keep_ratio must be True, given False")
    statistics = {} if mean is None or std is None else {"mean": _three(mean), "std": _three(std)}
    return PreprocessConfig(scale=_pair(augment, "img_scale"), multiple=multiple, window=window, **statistics)


def _head(decode_head: Mapping[str, Any], model: Mapping[str, Any]) -> HeadConfig:
    """Return the settings of the head and of the auxiliary head beside it."""
    kind = decode_head.get("type")
    auxiliary = model.get("auxiliary_head")
    if kind == "UPerHead":
        return _upernet(decode_head, auxiliary)
    if auxiliary is not None:
        raise ValueError(f"auxiliary_head is supported beside UPerHead only, given {kind!r}")
    if kind == "SegformerHead":
        _expect(decode_head, "decode_head", DENSE_FIXED)
        count_ignored = _dense_loss(decode_head)
        channels, dropout = _integer(decode_head, "channels"), float(_get(decode_head, "dropout_ratio", 0.1))
        return SegFormerConfig(channels=channels, dropout=dropout, count_ignored_pixels=count_ignored)
    if kind == "Mask2FormerHead":
        return _mask2former(decode_head, model.get("train_cfg") or {})
    raise ValueError(f"decode_head.type must be UPerHead, SegformerHead or Mask2FormerHead, given {kind!r}")


def _upernet(decode_head: Mapping[str, Any], auxiliary: Mapping[str, Any] | None) -> UperNetConfig:
    _expect(decode_head, "decode_head", DENSE_FIXED)
    dropout = float(_get(decode_head, "dropout_ratio", 0.1))
    weight = 0.4
    if auxiliary is not None:
        _expect(auxiliary, "auxiliary_head", {**AUXILIARY_FIXED, "dropout_ratio": dropout}, ("FCNHead",))
        weight = float(_mapping(auxiliary, "loss_decode").get("loss_weight", 1.0))
    return UperNetConfig(
        channels=_integer(decode_head, "channels"),
        pool_scales=tuple(int(scale) for scale in _get(decode_head, "pool_scales", (1, 2, 3, 6))),
        dropout=dropout,
        auxiliary_channels=None if auxiliary is None else _integer(auxiliary, "channels"),
        auxiliary_weight=weight,
        count_ignored_pixels=_dense_loss(decode_head),
    )


def _dense_loss(decode_head: Mapping[str, Any]) -> bool:
    """Check the loss of a dense head; return whether ignored pixels count in its mean."""
    loss = decode_head.get("loss_decode") or {}
    _expect(loss, "loss_decode", {k: v for k, v in DENSE_LOSS.items() if k != "avg_non_ignore"})
    return not loss.get("avg_non_ignore", False)


def _mask2former(decode_head: Mapping[str, Any], train_cfg: Mapping[str, Any]) -> Mask2FormerConfig:
    _expect(decode_head, "decode_head", MASK2FORMER_FIXED)
    channels = _integer(decode_head, "feat_channels")
    encoder = _mapping(_mapping(decode_head, "pixel_decoder"), "encoder")
    encoder_layer = _mapping(encoder, "transformerlayers")
    attention = _mapping(encoder_layer, "attn_cfgs")
    decoder = _mapping(decode_head, "transformer_decoder")
    decoder_layer = _mapping(decoder, "transformerlayers")
    heads = _integer(attention, "num_heads")
    _expect(decode_head, "decode_head", {"out_channels": channels})
    _expect(encoder_layer, "encoder", {"operation_order": ENCODER_ORDER})
    _expect(attention, "encoder attention", {"embed_dims": channels, "num_levels": 3}, ATTENTION)
    _expect(decoder_layer, "decoder", {"operation_order": DECODER_ORDER})
    _expect(_mapping(decoder_layer, "attn_cfgs"), "decoder attention", {"embed_dims": channels, "num_heads": heads})
    weights = {name: float(_get(decode_head, f"loss_{name}", {}).get("loss_weight", 1.0)) for name in LOSS_NAMES}
    class_weight = _get(_get(decode_head, "loss_cls", {}), "class_weight", [0.1])
    return Mask2FormerConfig(
        channels=channels,
        num_queries=_integer(decode_head, "num_queries"),
        num_heads=heads,
        encoder_layers=_integer(encoder, "num_layers"),
        encoder_hidden_channels=_integer(_mapping(encoder_layer, "ffn_cfgs"), "feedforward_channels"),
        encoder_points=_integer(attention, "num_points"),
        encoder_softmax=bool(attention.get("use_softmax", True)),
        decoder_layers=_integer(decoder, "num_layers"),
        decoder_hidden_channels=_integer(_mapping(decoder_layer, "ffn_cfgs"), "feedforward_channels"),
        loss_points=int(_get(train_cfg, "num_points", 12544)),
        oversample_ratio=float(_get(train_cfg, "oversample_ratio", 3.0)),
        importance_ratio=float(_get(train_cfg, "importance_sample_ratio", 0.75)),
        class_weight=weights["cls"],
        mask_weight=weights["mask"],
        dice_weight=weights["dice"],
        no_object_weight=float(class_weight[-1]),
    )


LOSS_NAMES = ("cls", "mask", "dice")


def _expect(
    values: Mapping[str, Any], where: str, fixed: Mapping[str, Any], types: tuple[str, ...] | None = None
) -> None:
    """Raise unless the settings that are given have the one value that is supported."""
    if types is not None and values.get("type") not in types:
        raise ValueError(f"{where}.type must be {' or '.join(types)}, given {values.get('type')!r}")
    for name, wanted in fixed.items():
        given = values.get(name, wanted)
        given = list(given) if isinstance(given, tuple) else given
        if given != wanted:
            raise ValueError(f"{where}.{name} must be {wanted!r}, given {given!r}")


def _get(values: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return a setting, or the default where it is missing or None."""
    value = values.get(name)
    return default if value is None else value


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    if not isinstance(value, Mapping):
        raise ValueError(f"the settings lack {name!r}, a dictionary; given {value!r}")
    return value


def _integer(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, given {value!r}")
    return value


def _pair(values: Mapping[str, Any], name: str) -> tuple[int, int]:
    value = values.get(name)
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(type(v) is int for v in value):
        raise ValueError(f"{name} must be two whole numbers, given {value!r}")
    return (value[0], value[1])


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise ValueError(f"mean and std need three values each, given {values}")
    return (values[0], values[1], values[2])
