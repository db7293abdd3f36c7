"""Names of the parameters of the original backbones and ours.

In a rule `#` stands for a number and `*` for the last part of a name. Every rule renames and nothing else, so a
conversion loses nothing. The original wraps norms in sequences, which leaves an index in its names.
"""

from __future__ import annotations

Rules = tuple[tuple[str, str], ...]
PREFIX = "backbone."

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


def below(ours: str, original: str, rules: Rules) -> Rules:
    """Put prefixes in front of both sides of each rule."""
    return tuple((ours + a, original + b) for a, b in rules)


COMPOSITE: Rules = (
    *below("backbones.#.", "cb_modules.#.", BACKBONE),
    ("feed_scales.#", "cb_modules.1.gamma#"),
    ("feed_convs.#.#.*", "cb_linears.#.#.*"),
)
