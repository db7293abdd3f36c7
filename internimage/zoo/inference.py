"""The architecture behind a checkpoint that does not state it, told from its names and shapes.

Most of an architecture shows in its parameters. `offset_scale` and the places of the extra norms do not, and neither
does the order of norms in the largest models: these come from the published size that agrees with everything visible.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping

from internimage.backbones import VARIANTS, BackboneConfig
from internimage.classification import ClassifierConfig, PreprocessConfig
from internimage.layers.deform_conv import packed_channels
from internimage.zoo.labels import IMAGENET_1K, IMAGENET_22K
from internimage.zoo.official import head_kind

Shapes = Mapping[str, tuple[int, ...]]
# Side of the square input of the published classifiers in pixels, by size and number of classes.
INPUT_SIZES = {"internimage_l": 384, "internimage_xl": 384, "internimage_h": 384, "internimage_g": 384}
INPUT_SIZES["flash_internimage_l"] = 384
INPUT_SIZES_1K = {"internimage_h": 640, "internimage_g": 512}
LABELS = {1000: IMAGENET_1K, 21841: IMAGENET_22K}


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What the names and shapes of a checkpoint show of its backbone."""

    channels: int
    depths: tuple[int, ...]
    groups: tuple[int, ...]
    is_flash: bool
    biases: tuple[bool, bool]
    points: int
    dw_kernel_size: int
    mlp_ratio: float
    center_feature_scale: bool
    level_norm: bool
    res_post_norm: bool
    extra_norms: int


def infer_backbone(shapes: Shapes, source: str) -> tuple[str, BackboneConfig]:
    """Return the published size behind an original checkpoint.

    Args:
        shapes: original names without prefix, and shapes.
        source: what to call the checkpoint in messages.

    Returns:
        Name of the size and its configuration, with the branch scales and the removed centre of the checkpoint.

    Raises:
        ValueError: the entries are no InternImage backbone, or no published size agrees with them.
    """
    given = _fingerprint(shapes, source)
    for name, config in VARIANTS.items():
        if _of(dataclasses.replace(config, remove_center=given.points == 8)) == given:
            has_scale = "levels.0.blocks.0.gamma1" in shapes
            scale = (config.layer_scale or 1.0) if has_scale else None
            return name, dataclasses.replace(config, layer_scale=scale, remove_center=given.points == 8)
    raise ValueError(
        f"{source} is an InternImage of no published size (channels {given.channels}, depths {given.depths}, groups "
        f"{given.groups}); offset_scale and the order of norms cannot be read from weights. "
        "Give the original settings: load(..., settings={'channels': ..., 'depths': ..., ...})"
    )


def infer_classifier(shapes: Shapes, source: str) -> ClassifierConfig:
    """Return the classifier behind an original checkpoint, with the preprocessing published for its size.

    Raises:
        ValueError: the entries are no InternImage classifier, or no published size agrees with them.
    """
    head = head_kind(shapes)
    if head is None or "head.weight" not in shapes:
        raise ValueError(
            f"{source} holds no classification head; take its backbone with create('internimage_t', weights=...)"
        )
    name, backbone = infer_backbone(shapes, source)
    num_classes = shapes["head.weight"][0]
    size = INPUT_SIZES.get(name, 224)
    if num_classes == 1000:
        size = INPUT_SIZES_1K.get(name, size)
    return ClassifierConfig(
        backbone=backbone,
        num_classes=num_classes,
        head=head,
        preprocess=PreprocessConfig(size=size),
        conv_head_ratio=shapes["conv_head.0.weight"][0] / backbone.widths[-1] if head == "conv" else 1.5,
    )


def _fingerprint(shapes: Shapes, source: str) -> Fingerprint:
    """Read the visible part of an architecture.

    Raises:
        ValueError: the entries are not those of a backbone.
    """
    try:
        channels = shapes["patch_embed.conv2.weight"][0]
        depths = tuple(_count(shapes, rf"levels\.{level}\.blocks\.(\d+)\.") for level in range(4))
        first = "levels.0.blocks.0"
        groups, points = _groups_and_points(shapes, channels)
        is_flash = f"{first}.dcn.offset_mask.weight" in shapes
        dw = f"{first}.dcn.offset_mask_dw.weight" if is_flash else f"{first}.dcn.dw_conv.0.weight"
        return Fingerprint(
            channels=channels,
            depths=depths,
            groups=groups,
            is_flash=is_flash,
            biases=(f"{first}.dcn.output_proj.bias" in shapes, f"{first}.mlp.fc2.bias" in shapes),
            points=points,
            dw_kernel_size=0 if is_flash and dw not in shapes else shapes[dw][2],
            mlp_ratio=shapes[f"{first}.mlp.fc1.weight"][0] / channels,
            center_feature_scale=f"{first}.dcn.center_feature_scale_proj_weight" in shapes,
            level_norm="levels.0.norm.0.weight" in shapes,
            res_post_norm=f"{first}.res_post_norm1.0.weight" in shapes,
            extra_norms=_count(shapes, r"levels\.2\.post_norms\.(\d+)\."),
        )
    except (KeyError, IndexError) as error:
        reason = f"no {error.args[0]}" if isinstance(error, KeyError) else "entries of the wrong rank"
        raise ValueError(f"{source} is no InternImage checkpoint in the original layout: {reason}") from error


def _groups_and_points(shapes: Shapes, channels: int) -> tuple[tuple[int, ...], int]:
    """Read groups of each level and points of the grid, 9 with its centre and 8 without.

    Packed channels of dcnv4 are 3 K for each group, rounded up to a multiple of 8: the groups that agree are those of
    the published group widths.
    """
    first = "levels.{}.blocks.0.dcn.{}.weight"
    if first.format(0, "mask") not in shapes:
        packed = [shapes[first.format(level, "offset_mask")][0] for level in range(4)]
        for points, width in itertools.product((9, 8), (16, 32, 8)):
            groups = tuple(channels * 2**level // width for level in range(4))
            if [packed_channels(g, points) for g in groups] == packed:
                return groups, points
        raise KeyError("published group width in levels.0.blocks.0.dcn.offset_mask.weight")
    masks = [shapes[first.format(level, "mask")][0] for level in range(4)]
    points = 9 if all(mask % 9 == 0 and channels * 2**i % (mask // 9) == 0 for i, mask in enumerate(masks)) else 8
    return tuple(mask // points for mask in masks), points


def _of(config: BackboneConfig) -> Fingerprint:
    """What a configuration's checkpoint would show."""
    is_flash = config.operator == "dcnv4"
    return Fingerprint(
        is_flash=is_flash,
        biases=(config.output_bias, config.mlp_output_bias),
        channels=config.channels,
        depths=config.depths,
        groups=config.groups,
        points=config.kernel_size**2 - config.remove_center,
        dw_kernel_size=config.dw_kernel_size or (0 if is_flash else config.kernel_size),
        mlp_ratio=config.mlp_ratio,
        center_feature_scale=config.center_feature_scale,
        level_norm=config.has_level_norm,
        res_post_norm=config.res_post_norm,
        extra_norms=len(config.level2_post_norm_block_ids),
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that `pattern` finds in the names."""
    numbers = [int(match[1]) for match in (re.match(pattern, key) for key in shapes) if match]
    return max(numbers, default=-1) + 1
