"""Names of the parameters of the original segmentation heads and ours; see `backbones.original.names` for the rules."""

from __future__ import annotations

from collections.abc import Collection

from internimage.backbones.original.names import (
    BACKBONE,
    FEED_FORWARD,
    PREFIX,
    Rules,
    attention,
    below,
    conv_norm,
    deform_attention,
)

# ours, original
UPERNET: Rules = (
    *conv_norm("head.pooled.#", "decode_head.psp_modules.#.1"),
    *conv_norm("head.bottleneck", "decode_head.bottleneck"),
    *conv_norm("head.laterals.#", "decode_head.lateral_convs.#"),
    *conv_norm("head.outputs.#", "decode_head.fpn_convs.#"),
    *conv_norm("head.fusion", "decode_head.fpn_bottleneck"),
    ("head.classifier.*", "decode_head.conv_seg.*"),
    *conv_norm("head.auxiliary.conv", "auxiliary_head.convs.0"),
    ("head.auxiliary.classifier.*", "auxiliary_head.conv_seg.*"),
)
SEGFORMER: Rules = (
    *conv_norm("head.laterals.#", "decode_head.convs.#"),
    *conv_norm("head.fusion", "decode_head.fusion_conv"),
    ("head.classifier.*", "decode_head.conv_seg.*"),
)
_PIXEL_DECODER: Rules = (
    *conv_norm("input_projections.#", "input_convs.#", "gn"),
    ("level_embedding", "level_encoding.weight"),
    *deform_attention("layers.#.attention", "encoder.layers.#.attentions.0"),
    *below("layers.#.", "encoder.layers.#.", FEED_FORWARD),
    *((f"layers.#.norm{i + 1}.*", f"encoder.layers.#.norms.{i}.*") for i in range(2)),
    *conv_norm("lateral", "lateral_convs.0", "gn"),
    *conv_norm("output", "output_convs.0", "gn"),
    ("mask_projection.*", "mask_feature.*"),
)
_DECODER_LAYER: Rules = (
    *attention("cross_attention", "attentions.0"),
    *attention("self_attention", "attentions.1"),
    *FEED_FORWARD,
    *((f"norm{i + 1}.*", f"norms.{i}.*") for i in range(3)),
)
MASK2FORMER: Rules = (
    *below("head.pixel_decoder.", "decode_head.pixel_decoder.", _PIXEL_DECODER),
    *below("head.layers.#.", "decode_head.transformer_decoder.layers.#.", _DECODER_LAYER),
    ("head.norm.*", "decode_head.transformer_decoder.post_norm.*"),
    ("head.query_position", "decode_head.query_embed.weight"),
    ("head.query_features", "decode_head.query_feat.weight"),
    ("head.level_embedding", "decode_head.level_embed.weight"),
    ("head.classifier.*", "decode_head.cls_embed.*"),
    *((f"head.mask_fc{i}.*", f"decode_head.mask_embed.{2 * i - 2}.*") for i in (1, 2, 3)),
)
# Kind of a head and the rules of the whole segmentor.
SEGMENTORS: dict[str, Rules] = {
    kind: (*below(PREFIX, PREFIX, BACKBONE), *rules)
    for kind, rules in (("upernet", UPERNET), ("segformer", SEGFORMER), ("mask2former", MASK2FORMER))
}


def own_kind(keys: Collection[str]) -> str | None:
    """Tell the head of a segmentor from our names; None for other models."""
    parts = {tuple(key.split(".", 2)[:2]) for key in keys}
    if ("head", "pixel_decoder") in parts:
        return "mask2former"
    if ("head", "laterals") not in parts:
        return None
    return "upernet" if ("head", "pooled") in parts else "segformer"
