"""The backbone behind a checkpoint that does not state it, told from its names and shapes.

Most of an architecture shows in its parameters. `offset_scale` and the places of the extra norms do not, and neither
does the order of norms in the largest models: these come from the published size of the same width and depths.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from internimage.backbones.config import VARIANTS, BackboneConfig
from internimage.errors import printable

Shapes = Mapping[str, tuple[int, ...]]


def infer_backbone(shapes: Shapes, source: str) -> tuple[str, BackboneConfig]:
    """Return the published size behind an original checkpoint: the one of its operator, width and depths.

    Filling a model compares every other shape, and names those that differ.

    Args:
        shapes: original names without prefix, and shapes.
        source: what to call the checkpoint in messages.

    Returns:
        Name of the size and its configuration, with the branch scales and the removed center of the checkpoint.

    Raises:
        ValueError: the entries are no InternImage backbone, or of no published size.
    """
    channels = rows(shapes, "patch_embed.conv2.weight")
    depths = tuple(_depth(shapes, level) for level in range(4))
    if not any(key.startswith("patch_embed.") for key in shapes):
        raise ValueError(_not_ours(shapes, source))
    if not channels or not all(depths):
        lacking = "blocks in one of its levels" if channels else "patch_embed.conv2.weight"
        raise ValueError(f"{source} is no InternImage checkpoint in the original layout: it has no {lacking}")
    is_flash = "levels.0.blocks.0.dcn.offset_mask.weight" in shapes
    for name, config in VARIANTS.items():
        if (config.operator == "dcnv4", config.channels, config.depths) == (is_flash, channels, depths):
            has_scale = "levels.0.blocks.0.gamma1" in shapes
            scale = (config.layer_scale or 1.0) if has_scale else None
            lacks_center = shapes.get("levels.0.blocks.0.dcn.mask.bias") == (8 * config.groups[0],)
            return name, dataclasses.replace(config, layer_scale=scale, remove_center=lacks_center)
    raise ValueError(
        f"{source} is {'a Flash' if is_flash else 'an '}InternImage of no published size (channels {channels}, depths "
        f"{depths}); offset_scale and the order of norms cannot be read from weights. "
        "Give the original settings: load(..., settings={'channels': ..., 'depths': ..., ...})"
    )


def _not_ours(shapes: Shapes, source: str) -> str:
    """Say that no name in a checkpoint is one of an InternImage, and which there are."""
    names = ", ".join(printable(key, 60) for key in list(shapes)[:4])
    more = f" and {len(shapes) - 4} more" if len(shapes) > 4 else ""
    return (
        f"{source} is no InternImage checkpoint in any known layout: it has no patch_embed.* and no classification "
        "head, looked for in every dictionary, below module., _orig_mod., model., backbone. and any other prefix; "
        f"it holds {names}{more}"
    )


def rows(shapes: Shapes, key: str) -> int:
    """Return the first side of an entry, 0 where it has none."""
    return (shapes.get(key) or (0,))[0]


def _depth(shapes: Shapes, level: int) -> int:
    """Return the number of blocks of a level."""
    matches = (re.match(rf"levels\.{level}\.blocks\.(\d+)\.", key) for key in shapes)
    return max((int(match[1]) for match in matches if match), default=-1) + 1
