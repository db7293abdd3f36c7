"""How fast each part of a detector or segmentor learns.

Parameter names are those of our models: `backbone.patch_embed...`, `backbone.levels.i.blocks.k...`, and for a composite
the same below `backbone.backbones.0.` and `backbone.backbones.1.`; everything else is the head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from internimage.training.dense.settings import DenseOptimizerSettings
from internimage.training.param_groups import grouped, has_weight_decay

_COMPOSITE = re.compile(r"^backbone\.backbones\.\d\.")
_BLOCK = re.compile(r"^backbone\.levels\.(\d)\.(?:blocks|post_norms)\.(\d+)\.")
_LEVEL_END = re.compile(r"^backbone\.levels\.(\d)\.(?:downsample|norm)\.")
# DINO's embedding of the levels learns as slowly as the stem.
_STEM = ("backbone.patch_embed.", "transformer.level_embedding")
_MASK_EMBEDDINGS = re.compile(r"^head\.(?:query_position|query_features|level_embedding|classifier\.|mask_fc\d\.)")
_OFFSETS = (".sampling_offsets.", ".offset_mask.")


def lr_multiplier(name: str, depths: Sequence[int], settings: DenseOptimizerSettings) -> float:
    """Return the factor on the learning rate of one parameter.

    With the rule "layers" the head learns at full speed, the last block `layer_decay` times slower, and so does each
    block before it; the stem comes before the first block. The norm and the way down at the end of a level count as
    the first block of the next level, or of their own where it is the last; an extra norm of level 2 (`post_norms`)
    counts as the block with its number.

    Args:
        name: parameter name of a detector or segmentor.
        depths: blocks of each of the four levels.
        settings: rule and factors.

    Source: `CustomLayerDecayOptimizerConstructor` of the InternImage and FlashInternImage releases.

    Example:
        >>> settings = DenseOptimizerSettings(layer_decay=0.9)
        >>> round(lr_multiplier("backbone.levels.3.blocks.2.mlp.fc1.weight", (4, 4, 18, 4), settings), 3)
        0.81
    """
    if settings.rule == "backbone":
        return settings.backbone_lr_multiplier if name.startswith("backbone.") else 1.0
    factor = settings.layer_decay ** _layers_above(name, depths, settings)
    return factor * settings.offset_lr_multiplier if any(part in name for part in _OFFSETS) else factor


def param_groups(model: nn.Module, settings: DenseOptimizerSettings, *, depths: Sequence[int]) -> list[dict[str, Any]]:
    """Return one optimizer group for each pair of (rate multiplier, decay) that occurs.

    Frozen parameters are left out.

    Args:
        model: a detector or segmentor.
        settings: decay, rule and factors.
        depths: blocks of each level of its backbone.

    Returns:
        Groups, see `internimage.training.param_groups.grouped`.
    """
    if not any(name.startswith("head.mask_fc1.") for name, _ in model.named_parameters()):
        settings = replace(settings, slow_mask_embeddings=False)  # other heads use some of the same names

    def setting(name: str, parameter: nn.Parameter) -> tuple[float, float]:
        decays = settings.rule == "backbone" or (has_weight_decay(name, parameter) and ".sampling_offsets." not in name)
        return lr_multiplier(name, depths, settings), settings.weight_decay if decays else 0.0

    return grouped(model, setting)


def _layers_above(name: str, depths: Sequence[int], settings: DenseOptimizerSettings) -> int:
    """Count the layers between a parameter and the head, which is 0."""
    if settings.composite_layer_decay:
        name = _COMPOSITE.sub("backbone.", name)
    if match := _BLOCK.match(name):
        return sum(depths[int(match[1]) :]) - int(match[2])
    if match := _LEVEL_END.match(name):
        return sum(depths[min(int(match[1]) + 1, len(depths) - 1) :])
    if name.startswith(_STEM) or (settings.slow_mask_embeddings and _MASK_EMBEDDINGS.match(name)):
        return sum(depths) + 1
    return 0
