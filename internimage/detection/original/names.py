"""Parameter names of the original detectors and ours; see `backbones.original.names` for the rules."""

from __future__ import annotations

from collections.abc import Collection

from internimage.backbones.original.names import BACKBONE, COMPOSITE, PREFIX, Rules, below

# ours, original
PYRAMID: Rules = (
    ("neck.lateral_convs.#.conv.*", "neck.lateral_convs.#.conv.*"),
    ("neck.lateral_convs.#.norm.*", "neck.lateral_convs.#.ln.*"),
    ("neck.output_convs.#.conv.*", "neck.fpn_convs.#.conv.*"),
    ("neck.output_convs.#.norm.*", "neck.fpn_convs.#.ln.*"),
)
PROPOSALS: Rules = (
    ("rpn.conv.*", "rpn_head.rpn_conv.*"),
    ("rpn.logits.*", "rpn_head.rpn_cls.*"),
    ("rpn.deltas.*", "rpn_head.rpn_reg.*"),
)
BOX_HEAD: Rules = (
    ("convs.#.conv.*", "shared_convs.#.conv.*"),
    ("convs.#.norm.*", "shared_convs.#.bn.*"),
    ("fcs.#.*", "shared_fcs.#.*"),
    ("classifier.*", "fc_cls.*"),
    ("regressor.*", "fc_reg.*"),
)
MASK_HEAD: Rules = (
    ("convs.#.conv.*", "convs.#.conv.*"),
    ("upsample.*", "upsample.*"),
    ("logits.*", "conv_logits.*"),
)
RCNN: Rules = (
    *PYRAMID,
    *PROPOSALS,
    *below("box_heads.0.", "roi_head.bbox_head.", BOX_HEAD),
    *below("mask_heads.0.", "roi_head.mask_head.", MASK_HEAD),
)
CASCADE_RCNN: Rules = (
    *PYRAMID,
    *PROPOSALS,
    *below("box_heads.#.", "roi_head.bbox_head.#.", BOX_HEAD),
    *below("mask_heads.#.", "roi_head.mask_head.#.", MASK_HEAD),
)
MAPPER: Rules = (
    ("neck.convs.#.conv.*", "neck.convs.#.conv.*"),
    ("neck.convs.#.norm.*", "neck.convs.#.gn.*"),
    ("neck.extra_convs.#.conv.*", "neck.extra_convs.#.conv.*"),
    ("neck.extra_convs.#.norm.*", "neck.extra_convs.#.gn.*"),
)
# The original keeps the neck of a composite in a list of one.
COMPOSITE_MAPPER: Rules = tuple((ours, original.replace("neck.", "neck.0.", 1)) for ours, original in MAPPER)
WHOLE_FEED_FORWARD: Rules = (
    ("feed_forward.fc1.*", "ffns.0.layers.0.0.*"),
    ("feed_forward.fc2.*", "ffns.0.layers.1.*"),
)
SLICED_FEED_FORWARD: Rules = (
    ("feed_forward.fc1.#.*", "ffns.0.fc1_#.*"),
    ("feed_forward.fc2.#.*", "ffns.0.fc2_#.*"),
    ("feed_forward.bias", "ffns.0.fc2_bias"),
)


def _transformer(feed_forward: Rules) -> Rules:
    """Rules of the transformer and of the heads of DINO."""
    encoder = (
        ("attention.sampling_offsets.*", "attentions.0.sampling_offsets.*"),
        ("attention.attention_weights.*", "attentions.0.attention_weights.*"),
        ("attention.value_proj.*", "attentions.0.value_proj.*"),
        ("attention.output_proj.*", "attentions.0.output_proj.*"),
        ("norms.#.*", "norms.#.*"),
        *feed_forward,
    )
    decoder = (
        ("self_attention.in_proj.*", "attentions.0.attn.in_proj_*"),
        ("self_attention.out_proj.*", "attentions.0.attn.out_proj.*"),
        ("cross_attention.sampling_offsets.*", "attentions.1.sampling_offsets.*"),
        ("cross_attention.attention_weights.*", "attentions.1.attention_weights.*"),
        ("cross_attention.value_proj.*", "attentions.1.value_proj.*"),
        ("cross_attention.output_proj.*", "attentions.1.output_proj.*"),
        ("norms.#.*", "norms.#.*"),
        *feed_forward,
    )
    return (
        ("transformer.level_embedding", "bbox_head.transformer.level_embeds"),
        *below("transformer.encoder.#.", "bbox_head.transformer.encoder.layers.#.", encoder),
        *below("transformer.decoder.#.", "bbox_head.transformer.decoder.layers.#.", decoder),
        ("transformer.position_fc1.*", "bbox_head.transformer.decoder.ref_point_head.0.*"),
        ("transformer.position_fc2.*", "bbox_head.transformer.decoder.ref_point_head.2.*"),
        ("transformer.decoder_norm.*", "bbox_head.transformer.decoder.norm.*"),
        ("transformer.proposal_fc.*", "bbox_head.transformer.enc_output.*"),
        ("transformer.proposal_norm.*", "bbox_head.transformer.enc_output_norm.*"),
        ("transformer.query_embedding.weight", "bbox_head.transformer.query_embed.weight"),
        ("classifiers.#.*", "bbox_head.cls_branches.#.*"),
        ("regressors.#.fc1.*", "bbox_head.reg_branches.#.0.*"),
        ("regressors.#.fc2.*", "bbox_head.reg_branches.#.2.*"),
        ("regressors.#.fc3.*", "bbox_head.reg_branches.#.4.*"),
        ("label_embedding.weight", "bbox_head.label_embedding.weight"),
    )


_HEADS: dict[str, Rules] = {
    "rcnn": RCNN,
    "cascade_rcnn": CASCADE_RCNN,
    "dino": (*MAPPER, *_transformer(WHOLE_FEED_FORWARD)),
    "dino_sliced": (*MAPPER, *_transformer(SLICED_FEED_FORWARD)),
    "cb_dino": (*COMPOSITE_MAPPER, *_transformer(WHOLE_FEED_FORWARD)),
    "cb_dino_sliced": (*COMPOSITE_MAPPER, *_transformer(SLICED_FEED_FORWARD)),
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
