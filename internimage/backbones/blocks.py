"""The parts of the InternImage network: stem, downsampling, block, level.

Shape legend: N images, H W map, C channels. Maps are channels last, (N, H, W, C).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

from internimage import parallel
from internimage.backbones.config import BackboneConfig
from internimage.layers.deform_conv import NORM_EPS, DCNv3, DCNv4, channels_last_conv
from internimage.layers.hooks import has_hooks
from internimage.layers.layer_norm import LayerNorm, norm_gelu
from internimage.layers.mlp import MLP
from internimage.ops.fused import Residual, add_branch, have_kernels


def channels_last(pixels: Tensor) -> Tensor:
    """Turn (N, C, H, W) into a contiguous (N, H, W, C)."""
    return pixels.permute(0, 2, 3, 1).contiguous()


class Stem(nn.Module):
    """Two strided convolutions with norms: (N, in_chans, H, W) to (N, H/4, W/4, C), sizes rounded up."""

    def __init__(self, in_chans: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, channels // 2, 3, stride=2, padding=1)
        self.norm1 = LayerNorm(channels // 2, eps=NORM_EPS, before_product=True)
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1)
        self.norm2 = LayerNorm(channels, eps=NORM_EPS)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (N, in_chans, H, W) pixels to an (N, H/4, W/4, C) map."""
        x = norm_gelu(channels_last_conv(self.conv1, channels_last(pixels)), self.norm1, self.act)
        return self.norm2(channels_last_conv(self.conv2, x))


class Downsample(nn.Module):
    """Strided convolution and norm between two levels: halves the sides (rounded up), doubles the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = LayerNorm(2 * channels, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, H/2, W/2, 2C)."""
        return self.norm(channels_last_conv(self.conv, x))


class Block(nn.Module):
    """Two residual branches, operator and MLP, in one of the five published arrangements of norms and scales."""

    def __init__(self, config: BackboneConfig, level: int, *, drop_path_rate: float, backend: str) -> None:
        super().__init__()
        channels = config.widths[level]
        self.post_norm = config.post_norm
        self.norm1 = LayerNorm(channels, eps=NORM_EPS, before_product=not self.post_norm)
        self.dcn = build_operator(config, level, backend)
        self.norm2 = LayerNorm(channels, eps=NORM_EPS, before_product=not self.post_norm)
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
        if self._has_kernels(x):
            return self._forward_by_rows(x)
        x = x + self._branch(x, self.norm1, self.dcn, self.res_post_norm1, self.gamma1)
        return x + self._branch(x, self.norm2, self.mlp, self.res_post_norm2, self.gamma2)

    def _has_kernels(self, x: Tensor) -> bool:
        """Whether all that stands between the layers of a branch runs as one kernel: on a GPU."""
        if not have_kernels(x) or type(self.drop_path) is not StochasticDepth:
            return False
        norms = [self.norm1, self.norm2]
        norms += [norm for norm in (self.res_post_norm1, self.res_post_norm2) if norm is not None]
        return all(type(norm) is LayerNorm for norm in norms) and not has_hooks(self.drop_path, *norms)

    def _forward_by_rows(self, x: Tensor) -> Tensor:
        """Each branch's norm, scale and sum, and the norm behind it, in one pass over its output."""
        norms, second_norm = (self.norm1, self.norm2), None
        if not self.post_norm:
            norms, second_norm = (self.res_post_norm1, self.res_post_norm2), self.norm2
        y, shift = _without_bias(self.dcn, x if self.post_norm else self.norm1(x))
        residual = Residual.of(gamma=self.gamma1, norm=norms[0], next_norm=second_norm)
        dtype = None if second_norm is None else second_norm.result_dtype(x)
        x, normed = add_branch(x, y, residual, shift=shift, keep=self._drawn_keep(x), dtype=dtype)
        y, shift = _without_bias(self.mlp, x if normed is None else normed)
        residual = Residual.of(gamma=self.gamma2, norm=norms[1])
        return add_branch(x, y, residual, shift=shift, keep=self._drawn_keep(x))[0]

    def _drawn_keep(self, x: Tensor) -> Tensor | None:
        """The factor (N,) of a branch for each image, as stochastic depth draws it."""
        rate = self.drop_path.p
        if not self.training or rate == 0:
            return None
        return parallel.kept(x, (), rate)

    def _branch(
        self, x: Tensor, norm: nn.Module, layer: nn.Module, res_norm: nn.Module | None, gamma: Tensor | None
    ) -> Tensor:
        """One residual branch without its shortcut."""
        y = norm(layer(x)) if self.post_norm else layer(norm(x))
        if res_norm is not None:
            y = res_norm(y)
        if gamma is not None:
            y = y * gamma
        drop_path = self.drop_path
        return drop_path(y) if drop_path.training else y


def _without_bias(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Apply a layer; a bias (C,) at its end may be left over, to be added with what follows."""
    if isinstance(layer, DCNv3 | DCNv4 | MLP) and not has_hooks(layer):
        return layer.without_bias(x)
    return layer(x), None


def build_operator(config: BackboneConfig, level: int, backend: str) -> DCNv3 | DCNv4:
    """Return the operator module of a level."""
    channels, groups = config.widths[level], config.groups[level]
    shared: dict[str, Any] = {
        "kernel_size": config.kernel_size,
        "dw_kernel_size": config.dw_kernel_size,
        "offset_scale": config.offset_scale,
        "center_feature_scale": config.center_feature_scale,
        "remove_center": config.remove_center,
        "backend": backend,
    }
    if config.operator == "dcnv4":
        return DCNv4(channels, groups, output_bias=config.output_bias, **shared)
    return DCNv3(channels, groups, through_dcnv4=config.operator == "dcnv3_through_dcnv4", **shared)


class Level(nn.Module):
    """The blocks of one resolution, their norms and the downsampling to the next level."""

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

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the output of this level, before the downsampling."""
        extra_norms = self.extra_norms()
        for i, block in enumerate(self.blocks):
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
            if i in extra_norms:
                x = extra_norms[i](x)
        return x if self.norm is None else self.norm(x)

    def extra_norms(self) -> dict[int, nn.LayerNorm]:
        """Norms behind blocks, by the index of the block."""
        return dict(zip(self.post_norm_block_ids, cast("list[nn.LayerNorm]", self.post_norms), strict=True))
