"""The InternImage backbone: a stem and four levels of deformable-convolution blocks.

Shape legend: N images, H W map, C channels. Inside the network maps are channels last, (N, H, W, C); the public output
is (N, C, H, W), the same memory seen through a permute.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from internimage.backbones.blocks import Level, Stem
from internimage.backbones.config import BackboneConfig
from internimage.backbones.fused import FusedStem, fused_maps
from internimage.backbones.pixels import check_pixels
from internimage.layers.backend import set_backend
from internimage.layers.deform_conv import DCNv3, DCNv4
from internimage.layers.fused import Replayed, fuse, keep_graphs, use_twins
from internimage.types import Features


class InternImage(Replayed):
    """InternImage backbone: images in, maps at strides 4, 8, 16 and 32 out, for any input size.

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
            raise ValueError(f"out_indices must be ascending indices of 0..3, given {out_indices}")
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

    def fuse(self, *, graphs: int = 0) -> InternImage:
        """Prepare for inference and return self: evaluation mode, packed weights, offsets and weights from one layer.

        Results stay equal to rounding. The packed copies take as much memory as the linear layers (and, where our own
        products run, the convolutions of stem and downsampling); they are dropped by `train()`, by loading weights and
        by moving the model, so call `fuse` last. Weights that are changed in place afterward are not seen.
        On a processor that would emulate bfloat16, such a model computes in float32, from copies twice as large.

        Args:
            graphs: on a GPU, how many sizes of input to keep the launches of as CUDA graphs: the first call at a size
                takes longer, others need no Python. Results are the same; layers inside are not called, so graphs do
                not serve while one of them has a hook, nor under autocast, gradients or `torch.compile`.

        Raises:
            ValueError: `graphs` is negative, or the model is not on a GPU.
        """
        fuse(self)
        keep_graphs(self, graphs)
        return self

    def set_backend(self, backend: str) -> InternImage:
        """Let all operators run on a backend from now on, see `internimage.ops.dcnv3`; return self.

        Raises:
            ValueError: there is no such backend.
        """
        set_backend(self, backend)
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
        return Features(self.replayed(pixels, self._maps))

    def _maps(self, pixels: Tensor) -> tuple[Tensor, ...]:
        levels = cast("list[Level]", self.levels)
        if isinstance(self.patch_embed, FusedStem):
            return fused_maps(self.patch_embed, self.pos_drop, levels, self.out_indices, pixels)
        x = self.pos_drop(self.patch_embed(pixels))
        maps: list[Tensor] = []
        for i, level in enumerate(levels):
            x = level(x)
            if i in self.out_indices:
                maps.append(x.permute(0, 3, 1, 2))
            if i == self.out_indices[-1] or level.downsample is None:
                break
            x = level.downsample(x)
        return tuple(maps)

    def check(self, pixels: Tensor) -> None:
        """Raise what `forward` promises unless the pixels can be its input."""
        check_pixels(pixels, in_chans=self.config.in_chans, weight=self.patch_embed.conv1.weight)

    def train(self, mode: bool = True) -> InternImage:
        """Set the mode; in evaluation mode the network runs on its inference twins. Frozen parts stay in that mode."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        if not mode:
            use_twins(self)
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
