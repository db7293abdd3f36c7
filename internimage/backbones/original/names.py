"""Names of the parameters of the original backbones and ours.

In a rule `#` stands for a number and `*` for the last part of a name. Every rule renames and nothing else, so a
conversion loses nothing. The original wraps norms in sequences, which leaves an index in its names.
"""

from __future__ import annotations

Rules = tuple[tuple[str, str], ...]
PREFIX = "backbone."


def below(ours: str, original: str, rules: Rules) -> Rules:
    """Put prefixes in front of both sides of each rule."""
    return tuple((ours + a, original + b) for a, b in rules)


def same(ours: str, original: str, *names: str) -> Rules:
    """Return rules for layers that both sides call by the same names."""
    return below(ours, original, tuple((f"{name}.*", f"{name}.*") for name in names))


def conv_norm(ours: str, original: str, norm: str = "bn") -> Rules:
    """Return the rules of a convolution and its norm."""
    return ((f"{ours}.conv.*", f"{original}.conv.*"), (f"{ours}.norm.*", f"{original}.{norm}.*"))


def attention(ours: str, original: str) -> Rules:
    """Return the rules of attention among all queries or pixels."""
    return ((f"{ours}.in_proj.*", f"{original}.attn.in_proj_*"), (f"{ours}.out_proj.*", f"{original}.attn.out_proj.*"))


def deform_attention(ours: str, original: str) -> Rules:
    """Return the rules of multi-scale deformable attention."""
    return same(f"{ours}.", f"{original}.", "sampling_offsets", "attention_weights", "value_proj", "output_proj")


# ours, original
_BLOCK: Rules = (
    ("gamma#", "gamma#"),
    ("norm#.*", "norm#.0.*"),
    ("res_post_norm#.*", "res_post_norm#.0.*"),
    ("dcn.dw_conv.*", "dcn.dw_conv.0.*"),
    ("dcn.dw_norm.*", "dcn.dw_conv.1.1.*"),
    *same("dcn.", "dcn.", "offset", "mask", "input_proj", "offset_mask", "offset_mask_dw", "value_proj", "output_proj"),
    ("dcn.center_feature_scale_proj.*", "dcn.center_feature_scale_proj_*"),
    ("mlp.fc#.*", "mlp.fc#.*"),
)
BACKBONE: Rules = (
    ("patch_embed.conv#.*", "patch_embed.conv#.*"),
    ("patch_embed.norm#.*", "patch_embed.norm#.1.*"),
    *below("levels.#.blocks.#.", "levels.#.blocks.#.", _BLOCK),
    ("levels.#.post_norms.#.*", "levels.#.post_norms.#.0.*"),
    ("levels.#.norm.*", "levels.#.norm.0.*"),
    ("levels.#.downsample.conv.*", "levels.#.downsample.conv.*"),
    ("levels.#.downsample.norm.*", "levels.#.downsample.norm.1.*"),
)
FEED_FORWARD: Rules = (("feed_forward.fc1.*", "ffns.0.layers.0.0.*"), ("feed_forward.fc2.*", "ffns.0.layers.1.*"))
COMPOSITE: Rules = (
    *below("backbones.#.", "cb_modules.#.", BACKBONE),
    ("feed_scales.#", "cb_modules.1.gamma#"),
    ("feed_convs.#.#.*", "cb_linears.#.#.*"),
)
