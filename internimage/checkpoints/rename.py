"""Foreign parameter names and ours: the one table between them, read in both directions.

In a rule `#` stands for a number and `*` for the last part of a name. Every rule renames and nothing else, so a
conversion loses nothing. The original wraps norms in sequences, which leaves an index in its names.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from internimage.backbones import BackboneConfig
from internimage.classification.head import HeadKind
from internimage.detection.original.names import DETECTION_HEADS, composite_rules
from internimage.segmentation.original.names import SEGMENTATION_HEADS

Value = TypeVar("Value")
Rules = tuple[tuple[str, str], ...]

# ours, original
BACKBONE: Rules = (
    ("patch_embed.conv#.*", "patch_embed.conv#.*"),
    ("patch_embed.norm#.*", "patch_embed.norm#.1.*"),
    ("levels.#.blocks.#.gamma#", "levels.#.blocks.#.gamma#"),
    ("levels.#.blocks.#.norm#.*", "levels.#.blocks.#.norm#.0.*"),
    ("levels.#.blocks.#.res_post_norm#.*", "levels.#.blocks.#.res_post_norm#.0.*"),
    ("levels.#.blocks.#.dcn.dw_conv.*", "levels.#.blocks.#.dcn.dw_conv.0.*"),
    ("levels.#.blocks.#.dcn.dw_norm.*", "levels.#.blocks.#.dcn.dw_conv.1.1.*"),
    ("levels.#.blocks.#.dcn.offset.*", "levels.#.blocks.#.dcn.offset.*"),
    ("levels.#.blocks.#.dcn.mask.*", "levels.#.blocks.#.dcn.mask.*"),
    ("levels.#.blocks.#.dcn.input_proj.*", "levels.#.blocks.#.dcn.input_proj.*"),
    ("levels.#.blocks.#.dcn.offset_mask.*", "levels.#.blocks.#.dcn.offset_mask.*"),
    ("levels.#.blocks.#.dcn.offset_mask_dw.*", "levels.#.blocks.#.dcn.offset_mask_dw.*"),
    ("levels.#.blocks.#.dcn.value_proj.*", "levels.#.blocks.#.dcn.value_proj.*"),
    ("levels.#.blocks.#.dcn.output_proj.*", "levels.#.blocks.#.dcn.output_proj.*"),
    (
        "levels.#.blocks.#.dcn.center_feature_scale_proj.*",
        "levels.#.blocks.#.dcn.center_feature_scale_proj_*",
    ),
    ("levels.#.blocks.#.mlp.fc#.*", "levels.#.blocks.#.mlp.fc#.*"),
    ("levels.#.post_norms.#.*", "levels.#.post_norms.#.0.*"),
    ("levels.#.norm.*", "levels.#.norm.0.*"),
    ("levels.#.downsample.conv.*", "levels.#.downsample.conv.*"),
    ("levels.#.downsample.norm.*", "levels.#.downsample.norm.1.*"),
)
CONV_HEAD: Rules = (
    ("conv.*", "conv_head.0.*"),
    ("norm.*", "conv_head.1.0.*"),
    ("classifier.*", "head.*"),
)
ATTENTION_POOL_HEAD: Rules = (
    ("project_x4.*", "dcnv3_head_x4.0.*"),
    ("project_x3.*", "dcnv3_head_x3.*"),
    ("attention_pool.norm_q.*", "clip_projector.norm1_q.0.*"),
    ("attention_pool.norm_k.*", "clip_projector.norm1_k.0.*"),
    ("attention_pool.norm_v.*", "clip_projector.norm1_v.0.*"),
    ("attention_pool.q.bias", "clip_projector.cross_dcn.q_bias"),
    ("attention_pool.k.bias", "clip_projector.cross_dcn.k_bias"),
    ("attention_pool.v.bias", "clip_projector.cross_dcn.v_bias"),
    ("attention_pool.q.weight", "clip_projector.cross_dcn.q.weight"),
    ("attention_pool.k.weight", "clip_projector.cross_dcn.k.weight"),
    ("attention_pool.v.weight", "clip_projector.cross_dcn.v.weight"),
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


def _below(ours: str, original: str, rules: Rules) -> Rules:
    """Put prefixes in front of both sides of each rule."""
    return tuple((ours + a, original + b) for a, b in rules)


METADATA_HEAD: Rules = (
    *_below("image.", "", ATTENTION_POOL_HEAD),
    *_below("temporal.", "meta_head_1.", METADATA_ENCODER),
    *_below("spatial.", "meta_head_2.", METADATA_ENCODER),
    ("norm.*", "meta_norm.*"),
    ("classifier.*", "meta_head.*"),
)
HEADS: dict[HeadKind, Rules] = {
    "conv": CONV_HEAD,
    "attention_pool": ATTENTION_POOL_HEAD,
    "attention_pool_metadata": METADATA_HEAD,
}
# Heads of models whose original names keep the prefix of the backbone; the rules hold the prefixes of the head.
PREFIXED_HEADS: dict[str, Rules] = {**DETECTION_HEADS, **SEGMENTATION_HEADS}
BACKBONE_PREFIX = "backbone."
# Transformers once rewrote every parameter whose name holds "gamma", so its folders call the branch scales otherwise.
HUGGINGFACE: Rules = (("levels.#.blocks.#.gamma#", "levels.#.blocks.#.layer_scale#"),)
HUGGINGFACE_PREFIX = "model."


def from_official(state: Mapping[str, Value], head: str | None) -> dict[str, Value]:
    """Rename the entries of an original model, or of a bare backbone, to ours.

    Args:
        state: original names and anything: tensors, shapes.
        head: kind of the head, None for a backbone without prefix.

    Returns:
        Our names and the same values in the same order; names that no rule knows stay as they are.
    """
    return _rename(state, _compiled(head, to_ours=True))


def to_official(state: Mapping[str, Value], head: str | None) -> dict[str, Value]:
    """Rename our entries to the original's; the inverse of `from_official`.

    Raises:
        ValueError: a name is none of ours.
    """
    rules = _compiled(head, to_ours=False)
    strange = [key for key in state if not any(pattern.fullmatch(key) for pattern, _ in rules)]
    if strange:
        raise ValueError(f"no parameters of this model: {', '.join(strange[:5])}")
    return _rename(state, rules)


def from_huggingface(state: Mapping[str, Value]) -> dict[str, Value]:
    """Rename the entries of a Transformers folder, without their prefix, to the original's; others stay as they are."""
    return _rename(state, tuple(_compile(theirs, original) for original, theirs in HUGGINGFACE))


def to_huggingface(state: Mapping[str, Value]) -> dict[str, Value]:
    """Rename the original's entries to those of a Transformers folder; their prefix included."""
    renamed = _rename(state, tuple(_compile(original, theirs) for original, theirs in HUGGINGFACE))
    return {HUGGINGFACE_PREFIX + key: value for key, value in renamed.items()}


def is_backbone_key(key: str) -> bool:
    """Whether an original name, without prefix, belongs to the backbone."""
    return key.startswith(("patch_embed.", "levels."))


def strip_prefix(state: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    """Cut a prefix from the names if every name has it."""
    if not state or not all(key.startswith(prefix) for key in state):
        return dict(state)
    return {key[len(prefix) :]: value for key, value in state.items()}


def head_kind(keys: Iterable[str]) -> HeadKind | None:
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


def own_head_kind(keys: Iterable[str]) -> str | None:
    """Tell the head from our names; None for a bare backbone."""
    names = list(keys)
    parts = {tuple(key.split(".", 2)[:2]) for key in names}
    if ("box_heads", "0") in parts:
        return "cascade_rcnn" if ("box_heads", "1") in parts else "rcnn"
    if ("transformer", "encoder") in parts:
        sliced = "_sliced" if "transformer.encoder.0.feed_forward.bias" in names else ""
        return f"{'cb_' if ('backbone', 'backbones') in parts else ''}dino{sliced}"
    if ("head", "pixel_decoder") in parts:
        return "mask2former"
    if ("head", "laterals") in parts:
        return "upernet" if ("head", "pooled") in parts else "segformer"
    if ("head", "temporal") in parts:
        return "attention_pool_metadata"
    if ("head", "attention_pool") in parts:
        return "attention_pool"
    return "conv" if ("head", "conv") in parts else None


def remove_center(key: str, tensor: Tensor, config: BackboneConfig) -> Tensor:
    """Drop the rows of the center point from an offset or mask layer that was trained with it.

    Layers that lack the center already, and every other parameter, come back unchanged, so that nothing is dropped
    twice.

    Args:
        key: name of the parameter, ours or the original's.
        tensor: its value.
        config: the backbone it is for.
    """
    match = re.search(r"levels\.(\d)\.blocks\.\d+\.dcn\.(offset|mask)\.(?:weight|bias)$", key)
    if match is None or not config.remove_center:
        return tensor
    values = 2 if match[2] == "offset" else 1
    groups, points = config.groups[int(match[1])], config.kernel_size**2
    if tensor.shape[0] != groups * points * values:
        return tensor
    rows = tensor.unflatten(0, (groups, points, values))
    center = points // 2
    return torch.cat([rows[:, :center], rows[:, center + 1 :]], dim=1).flatten(0, 2)


def _rename(state: Mapping[str, Value], rules: Iterable[tuple[re.Pattern[str], str]]) -> dict[str, Value]:
    """Rename each key by the first rule that knows it."""
    table = tuple(rules)
    renamed: dict[str, Value] = {}
    for key, value in state.items():
        match, template = next(((m, t) for pattern, t in table if (m := pattern.fullmatch(key))), (None, ""))
        name = key if match is None else match.expand(template)
        if name in renamed:
            raise ValueError(f"two entries of the checkpoint become {name!r}")
        renamed[name] = value
    return renamed


@functools.cache
def _compiled(head: str | None, *, to_ours: bool) -> tuple[tuple[re.Pattern[str], str], ...]:
    """The rules of a model in one direction; a model keeps its parts in `backbone` and `head`."""
    if head is None:
        rules = BACKBONE
    elif head in PREFIXED_HEADS:
        backbone = composite_rules(BACKBONE) if head.startswith("cb_") else BACKBONE
        rules = (*_below(BACKBONE_PREFIX, BACKBONE_PREFIX, backbone), *PREFIXED_HEADS[head])
    else:
        classifier_rules = {str(kind): rules for kind, rules in HEADS.items()}
        rules = (*_below(BACKBONE_PREFIX, "", BACKBONE), *_below("head.", "", classifier_rules[head]))
    return tuple(_compile(theirs, ours) if to_ours else _compile(ours, theirs) for ours, theirs in rules)


def _compile(source: str, target: str) -> tuple[re.Pattern[str], str]:
    """Turn a rule into a pattern and a replacement."""
    pattern = re.escape(source).replace(r"\#", r"(\d+)").replace("#", r"(\d+)").replace(r"\*", r"(\w+)")
    numbers = iter(range(1, 9))
    template = re.sub(r"[#*]", lambda _: rf"\g<{next(numbers)}>", target)
    return re.compile(pattern), template
