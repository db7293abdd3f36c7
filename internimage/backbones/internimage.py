"""The InternImage backbone: a stem and four levels of deformable-convolution blocks.

Shape legend: N images, H W map, C channels. Inside the network maps are channels last, (N, H, W, C); the public output
is (N, C, H, W), the same memory seen through a permute.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

from internimage.backbones.config import BackboneConfig
from internimage.backbones.pixels import check_pixels
from internimage.layers.deform_conv import NORM_EPS, DCNv3, DCNv4
from internimage.layers.fused.rules import can_fuse
from internimage.layers.layer_norm import LayerNorm
from internimage.layers.mlp import MLP
from internimage.layers.packed_linear import Affine, Packable, PackedLinear, conv_norm, patch_layers
from internimage.ops.fused import Residual
from internimage.ops.runtime.allocator import keep_freed_memory
from internimage.types import Features


def channels_last_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a convolution to an (N, H, W, C) map and return one; both permutes are views."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def channels_last(pixels: Tensor) -> Tensor:
    """Turn (N, C, H, W) into a contiguous (N, H, W, C)."""
    return pixels.permute(0, 2, 3, 1).contiguous()


class Stem(Packable):
    """Two strided convolutions with norms: (N, in_chans, H, W) to (N, H/4, W/4, C), sizes rounded up."""

    def __init__(self, in_chans: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, channels // 2, 3, stride=2, padding=1)
        self.norm1 = LayerNorm(channels // 2, eps=NORM_EPS)
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1)
        self.norm2 = LayerNorm(channels, eps=NORM_EPS)

    def packable(self) -> dict[str, tuple[Affine]]:
        """Name the products of this module."""
        return patch_layers(conv1=self.conv1, conv2=self.conv2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (N, in_chans, H, W) pixels to an (N, H/4, W/4, C) map."""
        if products := self.products:
            return self.forward_packed(pixels, products)[0]
        x = self.act(self.norm1(channels_last_conv(self.conv1, channels_last(pixels))))
        return self.norm2(channels_last_conv(self.conv2, x))

    def forward_packed(
        self, pixels: Tensor, products: dict[str, PackedLinear], next_norm: nn.LayerNorm | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The map from packed weights, and `next_norm` of it, None without `next_norm`."""
        x, _ = conv_norm(channels_last(pixels), products["conv1"], self.conv1, self.norm1, activation="gelu")
        return conv_norm(x, products["conv2"], self.conv2, self.norm2, next_norm=next_norm)


class Downsample(Packable):
    """Strided convolution and norm between two levels: halves the sides (rounded up), doubles the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = LayerNorm(2 * channels, eps=NORM_EPS)

    def packable(self) -> dict[str, tuple[Affine]]:
        """Name the products of this module."""
        return patch_layers(conv=self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, H/2, W/2, 2C)."""
        if products := self.products:
            return self.forward_packed(x, products)[0]
        return self.norm(channels_last_conv(self.conv, x))

    def forward_packed(
        self, x: Tensor, products: dict[str, PackedLinear], next_norm: nn.LayerNorm | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The map from packed weights, and `next_norm` of it, None without `next_norm`."""
        return conv_norm(x, products["conv"], self.conv, self.norm, next_norm=next_norm)


class Block(nn.Module):
    """Two residual branches, operator and MLP, in one of the five published arrangements of norms and scales."""

    def __init__(self, config: BackboneConfig, level: int, *, drop_path_rate: float, backend: str) -> None:
        super().__init__()
        channels = config.widths[level]
        self.post_norm = config.post_norm
        self.norm1 = LayerNorm(channels, eps=NORM_EPS)
        self.dcn = build_operator(config, level, backend)
        self.norm2 = LayerNorm(channels, eps=NORM_EPS)
        self.mlp = MLP(
            channels,
            int(channels * config.mlp_ratio),
            drop_rate=config.drop_rate,
            output_bias=config.mlp_output_bias,
        )
        self.drop_path = StochasticDepth(drop_path_rate, mode="row")
        scale = config.layer_scale
        self.gamma1 = None if scale is None else nn.Parameter(torch.full((channels,), scale))
        self.gamma2 = None if scale is None else nn.Parameter(torch.full((channels,), scale))
        # The published models ignore res_post_norm where post_norm or layer_scale is set.
        res_post_norm = config.res_post_norm and not config.post_norm and scale is None
        self.res_post_norm1 = LayerNorm(channels, eps=NORM_EPS) if res_post_norm else None
        self.res_post_norm2 = LayerNorm(channels, eps=NORM_EPS) if res_post_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, H, W, C)."""
        x = x + self._branch(x, self.norm1, self.dcn, self.res_post_norm1, self.gamma1)
        return x + self._branch(x, self.norm2, self.mlp, self.res_post_norm2, self.gamma2)

    def _branch(
        self, x: Tensor, norm: nn.Module, layer: nn.Module, res_norm: nn.Module | None, gamma: Tensor | None
    ) -> Tensor:
        """One residual branch without its shortcut."""
        y = norm(layer(x)) if self.post_norm else layer(norm(x))
        if res_norm is not None:
            y = res_norm(y)
        if gamma is not None:
            y = y * gamma
        return self.drop_path(y)

    @property
    def first_norm(self) -> nn.LayerNorm | None:
        """The norm that the block applies to its input before all else."""
        return None if self.post_norm else self.norm1

    def forward_fused(
        self, x: Tensor, normed: Tensor | None, *, next_norm: nn.LayerNorm | None
    ) -> tuple[Tensor, Tensor | None]:
        """The same function for inference: sums and norms in one pass over each branch's output.

        Args:
            x: (N, H, W, C) contiguous map.
            normed: `first_norm` of it when that is at hand.
            next_norm: what the output goes through next.

        Returns:
            The output, and `next_norm` of it when that is given.
        """
        if self.first_norm is not None:
            normed = self.first_norm(x) if normed is None else normed
        norms = (self.norm1, self.norm2) if self.post_norm else (self.res_post_norm1, self.res_post_norm2)
        second_norm = None if self.post_norm else self.norm2
        residual = Residual.of(gamma=self.gamma1, norm=norms[0], next_norm=second_norm)
        x, normed = self.dcn.join(x if normed is None else normed, x, residual)
        residual = Residual.of(gamma=self.gamma2, norm=norms[1], next_norm=next_norm)
        return self.mlp.join(x if normed is None else normed, x, residual)


def build_operator(config: BackboneConfig, level: int, backend: str) -> DCNv3 | DCNv4:
    """Return the operator module of a level."""
    channels, groups = config.widths[level], config.groups[level]
    if config.operator == "dcnv4":
        return DCNv4(
            channels,
            groups,
            kernel_size=config.kernel_size,
            dw_kernel_size=config.dw_kernel_size,
            offset_scale=config.offset_scale,
            center_feature_scale=config.center_feature_scale,
            remove_center=config.remove_center,
            output_bias=config.output_bias,
            backend=backend,
        )
    return DCNv3(
        channels,
        groups,
        kernel_size=config.kernel_size,
        dw_kernel_size=config.dw_kernel_size,
        offset_scale=config.offset_scale,
        center_feature_scale=config.center_feature_scale,
        remove_center=config.remove_center,
        through_dcnv4=config.operator == "dcnv3_through_dcnv4",
        backend=backend,
    )


class Level(nn.Module):
    """The blocks of one resolution, their norms and the way down to the next level."""

    def __init__(self, config: BackboneConfig, level: int, *, drop_path_rates: list[float], backend: str) -> None:
        super().__init__()
        channels = config.widths[level]
        self.blocks = nn.ModuleList(
            Block(config, level, drop_path_rate=rate, backend=backend) for rate in drop_path_rates
        )
        self.post_norm_block_ids = config.level2_post_norm_block_ids if level == 2 else ()
        self.post_norms = nn.ModuleList(LayerNorm(channels, eps=NORM_EPS) for _ in self.post_norm_block_ids)
        self.norm = LayerNorm(channels, eps=NORM_EPS) if config.has_level_norm else None
        self.downsample = Downsample(channels) if level < 3 else None
        self.activation_checkpointing = False
        self.backend = backend

    @property
    def first_norm(self) -> nn.LayerNorm | None:
        """The norm that the level applies to its input before all else."""
        return cast("Block", self.blocks[0]).first_norm

    def forward(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        """Map (N, H, W, C) to the output of this level, before the way down; `normed`: `first_norm` of x, if known."""
        if not self.training and can_fuse(x, backend=self.backend):
            return self._forward_fused(x.contiguous(), normed)
        extra_norms = self._extra_norms()
        for i, block in enumerate(self.blocks):
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
            if i in extra_norms:
                x = extra_norms[i](x)
        return x if self.norm is None else self.norm(x)

    def _extra_norms(self) -> dict[int, nn.LayerNorm]:
        """Norms behind blocks, by the number of the block."""
        return dict(zip(self.post_norm_block_ids, cast("list[nn.LayerNorm]", self.post_norms), strict=True))

    def _forward_fused(self, x: Tensor, normed: Tensor | None) -> Tensor:
        """The same function for inference: each block also takes the norm that comes after it."""
        extra_norms, blocks = self._extra_norms(), cast("list[Block]", self.blocks)
        for i, block in enumerate(blocks):
            last = i + 1 == len(blocks)
            next_norm = extra_norms.get(i) or (self.norm if last else blocks[i + 1].first_norm)
            x, normed = block.forward_fused(x, normed, next_norm=next_norm)
            if normed is not None and (last or i in extra_norms):
                x, normed = normed, None
        return self.norm(x) if self.norm is not None and len(blocks) - 1 in extra_norms else x


def enter(step: Stem | Downsample, x: Tensor, level: Level) -> tuple[Tensor, Tensor | None]:
    """Apply the step that leads to a level; from packed weights the level's first norm comes along."""
    if products := step.products:
        return step.forward_packed(x, products, level.first_norm)
    return step(x), None


class InternImage(nn.Module):
    """InternImage backbone: pictures in, maps at strides 4, 8, 16 and 32 out, for any input size.

    Args:
        config: architecture, see `BackboneConfig`; the published ones are in `VARIANTS`.
        out_indices: levels whose maps are returned, ascending, each 0..3.
        frozen_stages: -1 trains everything; k >= 0 freezes the stem and the first k levels: no gradients, no dropout.
        activation_checkpointing: recompute each block in the backward pass, which saves memory and costs time.
        backend: operator backend, see `internimage.ops.dcnv3`.

    Raises:
        ValueError: `out_indices` or `frozen_stages` is out of range.

    Source: InternImage, section 3.2, arXiv 2211.05778.

    Example:
        >>> from internimage.backbones import InternImage, variant
        >>> maps = InternImage(variant("internimage_pico"))(torch.rand(1, 3, 64, 96)).maps
        >>> [tuple(m.shape[1:]) for m in maps]
        [(24, 16, 24), (48, 8, 12), (96, 4, 6), (192, 2, 3)]
    """

    strides = (4, 8, 16, 32)

    def __init__(
        self,
        config: BackboneConfig,
        *,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        activation_checkpointing: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if not out_indices or list(out_indices) != sorted(set(out_indices) & set(range(4))):
            raise ValueError(f"out_indices must be ascending numbers of 0..3, given {out_indices}")
        if not -1 <= frozen_stages <= 4:
            raise ValueError(f"frozen_stages must lie in -1..4, given {frozen_stages}")
        self.config = config
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.patch_embed = Stem(config.in_chans, config.channels)
        self.pos_drop = nn.Dropout(config.drop_rate)
        rates = iter(drop_path_rates(config))
        self.levels = nn.ModuleList(
            Level(config, i, drop_path_rates=[next(rates) for _ in range(depth)], backend=backend)
            for i, depth in enumerate(config.depths)
        )
        self.apply(init_weights)
        self.set_activation_checkpointing(activation_checkpointing)
        self._freeze()

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the returned maps, in the order of `out_indices`."""
        return tuple(self.config.widths[i] for i in self.out_indices)

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Switch the recomputation of blocks in the backward pass on or off."""
        for level in cast("list[Level]", self.levels):
            level.activation_checkpointing = enabled

    def fuse(self) -> InternImage:
        """Prepare for inference and return self: evaluation mode, packed weights, offsets and weights in one product.

        Results stay equal to rounding. The packed copies take as much memory as the linear layers (and, where our own
        products run, the convolutions of stem and downsampling); they are dropped by `train()`, by loading weights and
        by moving the model, so call `fuse` last. Weights that are changed in place afterward are not seen.
        """
        self.eval()
        keep_freed_memory()
        for module in self.modules():
            if isinstance(module, Packable):
                module.pack()
        return self

    def forward(self, pixels: Tensor) -> Features:
        """Return the maps of the chosen levels.

        Args:
            pixels: (N, in_chans, H, W) float, normalized, any size.

        Returns:
            `Features` with (N, C_i, H_i, W_i) maps; each side is ceil(side / stride).

        Raises:
            ValueError: the shape is not (N, in_chans, H, W), a side is 0, or pixels without values (meta) meet weights
                that have some.
            TypeError: pixels are no dense floating-point tensor of the weights' dtype.
        """
        self.check(pixels)
        levels = cast("list[Level]", self.levels)
        x, normed = enter(self.patch_embed, pixels, levels[0])
        x, normed = self.pos_drop(x), None if self.pos_drop.training else normed
        maps: list[Tensor] = []
        for i, level in enumerate(levels):
            x = level(x, normed)
            if i in self.out_indices:
                maps.append(x.permute(0, 3, 1, 2))
            if i == self.out_indices[-1] or level.downsample is None:
                break
            x, normed = enter(level.downsample, x, levels[i + 1])
        return Features(tuple(maps))

    def check(self, pixels: Tensor) -> None:
        """Raise what `forward` promises unless the pixels can be its input."""
        check_pixels(pixels, in_chans=self.config.in_chans, weight=self.patch_embed.conv1.weight)

    def train(self, mode: bool = True) -> InternImage:
        """Set the mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def _frozen_parts(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [self.patch_embed, self.pos_drop, *self.levels[: self.frozen_stages]]

    def _freeze(self) -> None:
        for part in self._frozen_parts():
            part.requires_grad_(False)
            part.eval()


def drop_path_rates(config: BackboneConfig) -> list[float]:
    """Return the stochastic-depth rate of every block, first to last."""
    total = sum(config.depths)
    if config.drop_path_type == "uniform":
        return [config.drop_path_rate] * total
    return torch.linspace(0, config.drop_path_rate, total, device="cpu").tolist()


def init_weights(module: nn.Module) -> None:
    """Initialize one module the published way; for `nn.Module.apply`, which visits children before parents."""
    if isinstance(module, DCNv3 | DCNv4):
        module.reset_parameters()
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
