"""How fast each part of a network learns, and which weights decay.

Names of parameters are those of our models: `backbone.patch_embed...`, `backbone.levels.i.blocks.k...`, and for a
composite the same below `backbone.backbones.0.` and `backbone.backbones.1.`; everything else is the head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

_COMPOSITE = re.compile(r"^backbone\.backbones\.\d\.")
_BLOCK = re.compile(r"^backbone\.levels\.(\d)\.blocks\.(\d+)\.")
_EXTRA_NORM = re.compile(r"^backbone\.levels\.(\d)\.post_norms\.(\d+)\.")
_LEVEL_END = re.compile(r"^backbone\.levels\.(\d)\.(?:downsample|norm)\.")


@dataclass(frozen=True)
class LayerRules:
    """What a recipe says about the layers of its model.

    With `backbone_factor` the backbone learns by that factor. Without it the head learns at full speed and each block
    `layer_decay` times slower than the one after it. The norm and the downsampling at the end of a level count as the
    first block of the next level.

    Args:
        layer_decay: factor from each block to the one before it, 0..1; 1 for none.
        weight_decay: decay of what decays.
        head_is_layer: whether the last block is a layer below the head and the stem one below the first block
            (detectors and segmentors), or the last block learns at full speed and the stem counts as the first block
            (classifiers).
        norms_are_layers: whether the extra norms of level 2 count as the block with their index, and the norm after the
            last level as the first block of that level; else they learn at full speed.
        slow_parts: parts of the names of layers that learn by `slow_factor`.
        slow_factor: further factor on their rate.
        like_stem: pattern of the names in the head that learn as slowly as the stem; "" for none.
        backbone_factor: factor on the rates of the backbone instead of all this, or None; then everything decays.
        never_decay: parts of the names of layers that do not decay, besides vectors and biases.
        enters_composites: whether `layer_decay` reaches the backbones of a composite.

    Source: `lr_decay_keywords` and `optimizer.py` of the InternImage release (classifiers),
        `CustomLayerDecayOptimizerConstructor` of the InternImage and FlashInternImage releases (the others).
    """

    layer_decay: float
    weight_decay: float
    head_is_layer: bool = True
    norms_are_layers: bool = True
    slow_parts: tuple[str, ...] = ()
    slow_factor: float = 1.0
    like_stem: str = ""
    backbone_factor: float | None = None
    never_decay: tuple[str, ...] = ()
    enters_composites: bool = True

    def lr_multiplier(self, name: str, depths: Sequence[int]) -> float:
        """Return the factor on the learning rate of one parameter.

        Args:
            name: name of the parameter.
            depths: blocks of each of the four levels.

        Example:
            >>> rules = LayerRules(layer_decay=0.9, weight_decay=0.05)
            >>> round(rules.lr_multiplier("backbone.levels.3.blocks.2.mlp.fc1.weight", (4, 4, 18, 4)), 3)
            0.81
        """
        if self.backbone_factor is not None:
            return self.backbone_factor if name.startswith("backbone.") else 1.0
        factor = self.layer_decay ** self._layers_above(name, depths)
        return factor * self.slow_factor if any(part in name for part in self.slow_parts) else factor

    def decay(self, name: str, parameter: nn.Parameter) -> float:
        """Return the weight decay of one parameter."""
        is_free = parameter.ndim <= 1 or name.endswith(".bias") or any(part in name for part in self.never_decay)
        return 0.0 if is_free and self.backbone_factor is None else self.weight_decay

    def _layers_above(self, name: str, depths: Sequence[int]) -> int:
        """Count the layers between a parameter and the one that learns at full speed."""
        if self.enters_composites:
            name = _COMPOSITE.sub("backbone.", name)
        below = int(self.head_is_layer)
        match = _BLOCK.match(name) or (_EXTRA_NORM.match(name) if self.norms_are_layers else None)
        if match:
            return sum(depths[int(match[1]) :]) - int(match[2]) - 1 + below
        if match := _LEVEL_END.match(name):
            following = int(match[1]) + 1
            if following == len(depths) and not self.norms_are_layers:
                return 0
            return sum(depths[min(following, len(depths) - 1) :]) - 1 + below
        if name.startswith("backbone.patch_embed.") or (self.like_stem and re.match(self.like_stem, name)):
            return sum(depths) - 1 + 2 * below
        return 0
