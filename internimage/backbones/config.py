"""The settings of a backbone and the table of its published sizes; the one place where a size is written down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from internimage.errors import UnknownName
from internimage.ranges import Length, Range, check_ranges

SizeName = Literal[
    "internimage_pico",
    "internimage_t",
    "internimage_s",
    "internimage_b",
    "internimage_l",
    "internimage_xl",
    "internimage_h",
    "internimage_g",
    "flash_internimage_t",
    "flash_internimage_s",
    "flash_internimage_b",
    "flash_internimage_l",
]
# About eight times what the largest published size has; no description of a model leads beyond.
Depth = Annotated[int, Range(1, 256)]
Groups = Annotated[int, Range(1, 32_768)]
OPERATORS = ("dcnv3", "dcnv4", "dcnv3_through_dcnv4")


@dataclass(frozen=True)
class BackboneConfig:
    """Architecture of an InternImage backbone (Source: InternImage, section 3 and table 1, arXiv 2211.05778).

    Args:
        channels: width C of the first level; level i has C * 2**i channels.
        depths: blocks of each of the four levels.
        groups: groups G of the operator in each level; must divide the width of the level.
        operator: "dcnv3" (InternImage), "dcnv4" (FlashInternImage), or "dcnv3_through_dcnv4", which runs the weights
            and the function of dcnv3 through the dcnv4 operator.
        kernel_size: side of the sampling grid of the operator.
        mlp_ratio: hidden width of the MLP over its input width.
        layer_scale: start value of the learned scales of both branches, or None for no scales.
        offset_scale: factor on the sampling grid and on the learned offsets.
        post_norm: normalize the output of a branch instead of its input.
        res_post_norm: normalize the input and the output of a branch; ignored with `post_norm` or `layer_scale`,
            as in the published models.
        dw_kernel_size: side of the depth-wise convolution in front of offsets and masks; None means `kernel_size`
            with dcnv3 and no convolution with dcnv4.
        level2_post_norm_block_ids: blocks of level 2 that are followed by an extra norm.
        center_feature_scale: mix the operator's output with its input by a learned gate.
        remove_center: drop the center point of the sampling grid; needs an odd `kernel_size`.
        output_bias: whether the output projection of dcnv4 has a bias (that of dcnv3 always has).
        mlp_output_bias: whether the second linear layer of the MLPs has a bias.
        in_chans: channels of the input image.
        drop_rate: dropout after the stem and in the MLPs, 0..1.
        drop_path_rate: rate of stochastic depth of the last block, 0..1.
        drop_path_type: "linear" grows the rate from 0 over the blocks, "uniform" keeps it equal.
    """

    header_task: ClassVar[str] = "backbone"

    channels: Annotated[int, Range(1, 4096)]
    depths: tuple[Depth, Depth, Depth, Depth]
    groups: tuple[Groups, Groups, Groups, Groups]
    operator: Literal["dcnv3", "dcnv4", "dcnv3_through_dcnv4"] = "dcnv3"
    kernel_size: Annotated[int, Range(1, 31)] = 3
    mlp_ratio: Annotated[float, Range(0.01, 64.0)] = 4.0
    layer_scale: Annotated[float, Range(-1e3, 1e3)] | None = None
    offset_scale: Annotated[float, Range(0.0, 1e3)] = 1.0
    post_norm: bool = False
    res_post_norm: bool = False
    dw_kernel_size: Annotated[int, Range(1, 63)] | None = None
    level2_post_norm_block_ids: Annotated[tuple[int, ...], Length(0, 256)] = ()
    center_feature_scale: bool = False
    remove_center: bool = False
    output_bias: bool = True
    mlp_output_bias: bool = True
    in_chans: Annotated[int, Range(1, 4096)] = 3
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    drop_path_type: Literal["linear", "uniform"] = "linear"

    def __post_init__(self) -> None:
        if len(self.depths) != 4 or len(self.groups) != 4:
            raise ValueError(f"depths and groups need four entries, given {self.depths} and {self.groups}")
        check_ranges(self)
        for width, groups in zip(self.widths, self.groups, strict=True):
            if groups < 1 or width % groups:
                raise ValueError(f"groups must divide the width of their level: {width} channels, {groups} groups")
        if self.remove_center and self.kernel_size % 2 == 0:
            raise ValueError(f"remove_center needs an odd kernel_size, given {self.kernel_size}")
        if self.operator not in OPERATORS:
            raise ValueError(f"operator must be one of {OPERATORS}, given {self.operator!r}")
        if self.operator != "dcnv4" and not self.output_bias:
            raise ValueError("output_bias=False exists with operator='dcnv4' only; dcnv3 always has the bias")
        if self.drop_path_type not in ("linear", "uniform"):
            raise ValueError(f"drop_path_type must be 'linear' or 'uniform', given {self.drop_path_type!r}")
        for name in ("drop_rate", "drop_path_rate"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), given {getattr(self, name)}")
        beyond = [i for i in self.level2_post_norm_block_ids if not 0 <= i < self.depths[2]]
        if beyond:
            raise ValueError(f"level2_post_norm_block_ids {beyond} are outside of level 2 ({self.depths[2]} blocks)")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the four levels."""
        return tuple(self.channels * 2**i for i in range(4))

    @property
    def num_blocks(self) -> int:
        """Blocks of all levels."""
        return sum(self.depths)

    @property
    def has_level_norm(self) -> bool:
        """Whether each level ends with a norm."""
        return not self.post_norm or self.center_feature_scale


_T = BackboneConfig(channels=64, depths=(4, 4, 18, 4), groups=(4, 8, 16, 32))
_S = BackboneConfig(channels=80, depths=(4, 4, 21, 4), groups=(5, 10, 20, 40), layer_scale=1e-5, post_norm=True)
_B = replace(_S, channels=112, groups=(7, 14, 28, 56))
_L = replace(_S, channels=160, depths=(5, 5, 22, 5), groups=(10, 20, 40, 80), offset_scale=2.0)
_XL = replace(_L, channels=192, depths=(5, 5, 24, 5), groups=(12, 24, 48, 96))
_H = BackboneConfig(
    channels=320,
    depths=(6, 6, 32, 6),
    groups=(10, 20, 40, 80),
    res_post_norm=True,
    dw_kernel_size=5,
    level2_post_norm_block_ids=(5, 11, 17, 23, 29),
    center_feature_scale=True,
)
_G = replace(
    _H,
    channels=512,
    depths=(2, 2, 48, 4),
    groups=(16, 32, 64, 128),
    post_norm=True,
    res_post_norm=False,
    level2_post_norm_block_ids=(5, 11, 17, 23, 29, 35, 41, 47),
)
_PICO = BackboneConfig(channels=24, depths=(2, 2, 5, 1), groups=(1, 3, 6, 12))

_FLASH_T = replace(_T, operator="dcnv4", output_bias=False, mlp_output_bias=False)
_FLASH_S = replace(_S, operator="dcnv4", dw_kernel_size=3, output_bias=False, mlp_output_bias=False)
_FLASH_B = replace(_B, operator="dcnv4", dw_kernel_size=3, output_bias=False, mlp_output_bias=False, offset_scale=0.5)
_FLASH_L = replace(_L, operator="dcnv4", dw_kernel_size=3)

VARIANTS: dict[str, BackboneConfig] = {
    "internimage_pico": _PICO,
    "internimage_t": _T,
    "internimage_s": _S,
    "internimage_b": _B,
    "internimage_l": _L,
    "internimage_xl": _XL,
    "internimage_h": _H,
    "internimage_g": _G,
    "flash_internimage_t": _FLASH_T,
    "flash_internimage_s": _FLASH_S,
    "flash_internimage_b": _FLASH_B,
    "flash_internimage_l": _FLASH_L,
}

# Two backbones of a size, the second fed by the first, are called by its name with this in front.
COMPOSITE_PREFIX = "cb_"
# Detectors and segmentors of these sizes were trained without branch scales, the others with scales that start at 1.
WITHOUT_SCALES = ("internimage_pico", "internimage_h", "internimage_g")
# Classifiers of these sizes were published with an attention pool as head.
ATTENTION_POOLED = ("internimage_h", "internimage_g")


def variant(name: str) -> BackboneConfig:
    """Return the settings of a size by its name.

    Raises:
        UnknownName: no such size; the message suggests the nearest ones.

    Example:
        >>> variant("internimage_t").widths
        (64, 128, 256, 512)
    """
    if name not in VARIANTS:
        raise UnknownName("backbone", name, VARIANTS, "See internimage.list_models('internimage_*').")
    return VARIANTS[name]
