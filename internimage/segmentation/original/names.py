"""Names of the parameters of the original segmentation heads and ours; see `backbones.original.names` for the rules."""

from __future__ import annotations

from collections.abc import Collection

from internimage.backbones.original.names import BACKBONE, PREFIX, Rules, below


def _conv_norm(ours: str, original: str, norm: str = "bn") -> Rules:
    """A convolution and its norm."""
    return ((f"{ours}.conv.*", f"{original}.conv.*"), (f"{ours}.norm.*", f"{original}.{norm}.*"))


# ours, original
UPERNET: Rules = (
    *_conv_norm("head.pooled.#", "decode_head.psp_modules.#.1"),
    *_conv_norm("head.bottleneck", "decode_head.bottleneck"),
    *_conv_norm("head.laterals.#", "decode_head.lateral_convs.#"),
    *_conv_norm("head.outputs.#", "decode_head.fpn_convs.#"),
    *_conv_norm("head.fusion", "decode_head.fpn_bottleneck"),
    ("head.classifier.*", "decode_head.conv_seg.*"),
    *_conv_norm("head.auxiliary.conv", "auxiliary_head.convs.0"),
    ("head.auxiliary.classifier.*", "auxiliary_head.conv_seg.*"),
)
SEGFORMER: Rules = (
    *_conv_norm("head.laterals.#", "decode_head.convs.#"),
    *_conv_norm("head.fusion", "decode_head.fusion_conv"),
    ("head.classifier.*", "decode_head.conv_seg.*"),
)
_FEED_FORWARD: Rules = (
    ("feed_forward.fc1.*", "ffns.0.layers.0.0.*"),
    ("feed_forward.fc2.*", "ffns.0.layers.1.*"),
)
_PIXEL_DECODER: Rules = (
    *_conv_norm("input_projections.#", "input_convs.#", "gn"),
    ("level_embedding", "level_encoding.weight"),
    ("layers.#.attention.sampling_offsets.*", "encoder.layers.#.attentions.0.sampling_offsets.*"),
    ("layers.#.attention.attention_weights.*", "encoder.layers.#.attentions.0.attention_weights.*"),
    ("layers.#.attention.value_proj.*", "encoder.layers.#.attentions.0.value_proj.*"),
    ("layers.#.attention.output_proj.*", "encoder.layers.#.attentions.0.output_proj.*"),
    *below("layers.#.", "encoder.layers.#.", _FEED_FORWARD),
    ("layers.#.norm1.*", "encoder.layers.#.norms.0.*"),
    ("layers.#.norm2.*", "encoder.layers.#.norms.1.*"),
    *_conv_norm("lateral", "lateral_convs.0", "gn"),
    *_conv_norm("output", "output_convs.0", "gn"),
    ("mask_projection.*", "mask_feature.*"),
)
_DECODER_LAYER: Rules = (
    ("cross_attention.in_proj.*", "attentions.0.attn.in_proj_*"),
    ("cross_attention.out_proj.*", "attentions.0.attn.out_proj.*"),
    ("self_attention.in_proj.*", "attentions.1.attn.in_proj_*"),
    ("self_attention.out_proj.*", "attentions.1.attn.out_proj.*"),
    *_FEED_FORWARD,
    ("norm1.*", "norms.0.*"),
    ("norm2.*", "norms.1.*"),
    ("norm3.*", "norms.2.*"),
)
MASK2FORMER: Rules = (
    *below("head.pixel_decoder.", "decode_head.pixel_decoder.", _PIXEL_DECODER),
    *below("head.layers.#.", "decode_head.transformer_decoder.layers.#.", _DECODER_LAYER),
    ("head.norm.*", "decode_head.transformer_decoder.post_norm.*"),
    ("head.query_position", "decode_head.query_embed.weight"),
    ("head.query_features", "decode_head.query_feat.weight"),
    ("head.level_embedding", "decode_head.level_embed.weight"),
    ("head.classifier.*", "decode_head.cls_embed.*"),
    ("head.mask_fc1.*", "decode_head.mask_embed.0.*"),
    ("head.mask_fc2.*", "decode_head.mask_embed.2.*"),
    ("head.mask_fc3.*", "decode_head.mask_embed.4.*"),
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
