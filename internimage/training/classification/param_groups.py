"""How fast each part of a classifier learns.

Parameter names are those of a `Classifier`: `backbone.patch_embed...`, `backbone.levels.i.blocks.k...`, `head...`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from internimage.training.classification.config import ScaledOptimizerSettings
from internimage.training.param_groups import grouped, has_weight_decay

_BLOCK = re.compile(r"^backbone\.levels\.(\d)\.blocks\.(\d+)\.")
_LEVEL_END = re.compile(r"^backbone\.levels\.([012])\.(?:downsample|norm)\.")
# The published runs slow down offsets and gates of the operator, but not its weights (`mask`).
_SLOW_OPERATOR_PARTS = (".dcn.offset.", ".dcn.center_feature_scale_proj.")


def lr_multiplier(name: str, depths: Sequence[int], *, layer_decay: float, dcn_lr_multiplier: float = 1.0) -> float:
    """Return the factor on the learning rate of one parameter.

    The last block learns at full speed and each block before it `layer_decay` times slower. The stem counts as the
    first block; the norm and the way down at the end of a level count as the first block of the next level. Head, last
    norm and the extra norms of level 2 (`post_norms`) learn at full speed, as in the original.

    Args:
        name: parameter name of a classifier.
        depths: blocks of each of the four levels.
        layer_decay: factor from each block to the one before it, 0..1; 1 switches everything off.
        dcn_lr_multiplier: further factor on the operator's offset and gate layers.

    Source: `lr_decay_keywords` and `optimizer.py` of the InternImage release.

    Example:
        >>> round(lr_multiplier("backbone.levels.3.blocks.2.mlp.fc1.weight", (4, 4, 18, 4), layer_decay=0.9), 3)
        0.9
    """
    if layer_decay == 1.0:
        return 1.0
    factor = 1.0
    if match := _BLOCK.match(name):
        factor = layer_decay ** _blocks_above(depths, int(match[1]), int(match[2]))
    elif match := _LEVEL_END.match(name):
        factor = layer_decay ** _blocks_above(depths, int(match[1]) + 1, 0)
    elif name.startswith("backbone.patch_embed."):
        factor = layer_decay ** _blocks_above(depths, 0, 0)
    if any(part in name for part in _SLOW_OPERATOR_PARTS):
        factor *= dcn_lr_multiplier
    return factor


def param_groups(model: nn.Module, settings: ScaledOptimizerSettings, *, depths: Sequence[int]) -> list[dict[str, Any]]:
    """Return one optimizer group for each pair of (rate multiplier, decay) that occurs.

    Frozen parameters are left out.

    Args:
        model: a classifier.
        settings: decay, layer decay, operator multiplier.
        depths: blocks of each level of its backbone.

    Returns:
        Groups, see `internimage.training.param_groups.grouped`.
    """

    def setting(name: str, parameter: nn.Parameter) -> tuple[float, float]:
        multiplier = lr_multiplier(
            name, depths, layer_decay=settings.layer_decay, dcn_lr_multiplier=settings.dcn_lr_multiplier
        )
        return multiplier, settings.weight_decay if has_weight_decay(name, parameter) else 0.0

    return grouped(model, setting)


def _blocks_above(depths: Sequence[int], level: int, block: int) -> int:
    """Blocks that come after one block on the way to the head."""
    return sum(depths[level:]) - block - 1
