"""Names of the parameters of the original classifiers and ours; see `backbones.original.names` for the rules."""

from __future__ import annotations

from collections.abc import Collection

from internimage.backbones.original.names import BACKBONE, PREFIX, Rules, below
from internimage.classification.head import HeadKind

# ours, original
CONV_HEAD: Rules = (("conv.*", "conv_head.0.*"), ("norm.*", "conv_head.1.0.*"), ("classifier.*", "head.*"))
ATTENTION_POOL_HEAD: Rules = (
    ("project_x4.*", "dcnv3_head_x4.0.*"),
    ("project_x3.*", "dcnv3_head_x3.*"),
    *((f"attention_pool.norm_{x}.*", f"clip_projector.norm1_{x}.0.*") for x in "qkv"),
    *((f"attention_pool.{x}.bias", f"clip_projector.cross_dcn.{x}_bias") for x in "qkv"),
    *((f"attention_pool.{x}.weight", f"clip_projector.cross_dcn.{x}.weight") for x in "qkv"),
    ("attention_pool.proj.*", "clip_projector.cross_dcn.proj.*"),
    ("norm.*", "fc_norm.0.*"),
    ("classifier.*", "head.*"),
)
METADATA_ENCODER: Rules = (
    ("fc.*", "0.*"),
    ("norm.*", "2.*"),
    ("residual.fc#.*", "3.w#.*"),
    ("residual.norm#.*", "3.norm_fn#.*"),
)
METADATA_HEAD: Rules = (
    *below("image.", "", ATTENTION_POOL_HEAD),
    *below("temporal.", "meta_head_1.", METADATA_ENCODER),
    *below("spatial.", "meta_head_2.", METADATA_ENCODER),
    ("norm.*", "meta_norm.*"),
    ("classifier.*", "meta_head.*"),
)
_HEADS: dict[HeadKind, Rules] = {
    "conv": CONV_HEAD,
    "attention_pool": ATTENTION_POOL_HEAD,
    "attention_pool_metadata": METADATA_HEAD,
}
# Kind of a head and the rules of the whole classifier, whose original names have no prefix.
CLASSIFIERS: dict[str, Rules] = {
    kind: (*below(PREFIX, "", BACKBONE), *below("head.", "", rules)) for kind, rules in _HEADS.items()
}


def head_kind(keys: Collection[str]) -> HeadKind | None:
    """Tell the head of an original checkpoint from its names; None for a bare backbone.

    Example:
        >>> head_kind(["patch_embed.conv1.weight", "conv_head.0.weight", "head.weight"])
        'conv'
    """
    tops = {key.split(".", 1)[0] for key in keys}
    if "meta_head" in tops:
        return "attention_pool_metadata"
    if "clip_projector" in tops:
        return "attention_pool"
    return "conv" if "conv_head" in tops else None


def own_kind(keys: Collection[str]) -> HeadKind | None:
    """Tell the head of a classifier from our names; None for other models."""
    parts = {tuple(key.split(".", 2)[:2]) for key in keys}
    if ("head", "temporal") in parts:
        return "attention_pool_metadata"
    if ("head", "attention_pool") in parts:
        return "attention_pool"
    return "conv" if ("head", "conv") in parts else None
