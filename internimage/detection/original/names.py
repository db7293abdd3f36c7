"""Parameter names of the original detectors and ours; see `backbones.original.names` for the rules."""

from __future__ import annotations

from collections.abc import Collection

from internimage.backbones.original.names import (
    BACKBONE,
    COMPOSITE,
    FEED_FORWARD,
    PREFIX,
    Rules,
    attention,
    below,
    conv_norm,
    deform_attention,
    same,
)

# ours, original
PYRAMID_AND_PROPOSALS: Rules = (
    *conv_norm("neck.lateral_convs.#", "neck.lateral_convs.#", "ln"),
    *conv_norm("neck.output_convs.#", "neck.fpn_convs.#", "ln"),
    ("rpn.conv.*", "rpn_head.rpn_conv.*"),
    ("rpn.logits.*", "rpn_head.rpn_cls.*"),
    ("rpn.deltas.*", "rpn_head.rpn_reg.*"),
)
BOX_HEAD: Rules = (
    *conv_norm("convs.#", "shared_convs.#"),
    ("fcs.#.*", "shared_fcs.#.*"),
    ("classifier.*", "fc_cls.*"),
    ("regressor.*", "fc_reg.*"),
)
MASK_HEAD: Rules = (*same("", "", "convs.#.conv", "upsample"), ("logits.*", "conv_logits.*"))
SLICED_FEED_FORWARD: Rules = (
    ("feed_forward.fc1.#.*", "ffns.0.fc1_#.*"),
    ("feed_forward.fc2.#.*", "ffns.0.fc2_#.*"),
    ("feed_forward.bias", "ffns.0.fc2_bias"),
)


def _rcnn(ours: str, original: str) -> Rules:
    """Rules of a two-stage detector, whose original numbers the heads of several stages only."""
    return (
        *PYRAMID_AND_PROPOSALS,
        *below(f"box_heads.{ours}.", f"roi_head.bbox_head.{original}", BOX_HEAD),
        *below(f"mask_heads.{ours}.", f"roi_head.mask_head.{original}", MASK_HEAD),
    )


def _dino(neck: str, feed_forward: Rules) -> Rules:
    """Rules of the neck, the transformer and the heads of DINO."""
    encoder = (*deform_attention("attention", "attentions.0"), *same("", "", "norms.#"), *feed_forward)
    decoder = (
        *attention("self_attention", "attentions.0"),
        *deform_attention("cross_attention", "attentions.1"),
        *same("", "", "norms.#"),
        *feed_forward,
    )
    transformer = (
        ("level_embedding", "level_embeds"),
        *below("encoder.#.", "encoder.layers.#.", encoder),
        *below("decoder.#.", "decoder.layers.#.", decoder),
        ("position_fc1.*", "decoder.ref_point_head.0.*"),
        ("position_fc2.*", "decoder.ref_point_head.2.*"),
        ("decoder_norm.*", "decoder.norm.*"),
        ("proposal_fc.*", "enc_output.*"),
        ("proposal_norm.*", "enc_output_norm.*"),
        ("query_embedding.weight", "query_embed.weight"),
    )
    return (
        *conv_norm("neck.convs.#", f"{neck}.convs.#", "gn"),
        *conv_norm("neck.extra_convs.#", f"{neck}.extra_convs.#", "gn"),
        *below("transformer.", "bbox_head.transformer.", transformer),
        ("classifiers.#.*", "bbox_head.cls_branches.#.*"),
        *((f"regressors.#.fc{i}.*", f"bbox_head.reg_branches.#.{2 * i - 2}.*") for i in (1, 2, 3)),
        ("label_embedding.weight", "bbox_head.label_embedding.weight"),
    )


# The original keeps the neck of a composite in a list of one.
_HEADS: dict[str, Rules] = {
    "rcnn": _rcnn("0", ""),
    "cascade_rcnn": _rcnn("#", "#."),
    "dino": _dino("neck", FEED_FORWARD),
    "dino_sliced": _dino("neck", SLICED_FEED_FORWARD),
    "cb_dino": _dino("neck.0", FEED_FORWARD),
    "cb_dino_sliced": _dino("neck.0", SLICED_FEED_FORWARD),
}
# Kind of a detector (`config.kind`) and its rules.
DETECTORS: dict[str, Rules] = {
    kind: (*below(PREFIX, PREFIX, COMPOSITE if kind.startswith("cb_") else BACKBONE), *rules)
    for kind, rules in _HEADS.items()
}


def own_kind(keys: Collection[str]) -> str | None:
    """Tell the kind of a detector from our names; None for other models."""
    parts = {tuple(key.split(".", 2)[:2]) for key in keys}
    if ("box_heads", "0") in parts:
        return "cascade_rcnn" if ("box_heads", "1") in parts else "rcnn"
    if ("transformer", "encoder") not in parts:
        return None
    sliced = "_sliced" if "transformer.encoder.0.feed_forward.bias" in keys else ""
    return f"{'cb_' if ('backbone', 'backbones') in parts else ''}dino{sliced}"
