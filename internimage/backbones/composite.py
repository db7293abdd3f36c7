"""The composite backbone CB-InternImage: a second backbone that is fed with the maps of a first one.

Shape legend: N images, H W map, C channels. Inside the network maps are channels last, (N, H, W, C).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.backbones.blocks import Level
from internimage.backbones.config import BackboneConfig
from internimage.backbones.internimage import InternImage
from internimage.layers.fused import Replayed, fuse, keep_graphs
from internimage.types import Features

ALL_LEVELS = (0, 1, 2, 3)


class CompositeInternImage(Replayed):
    """Two InternImage backbones; every level of the second one also sees all coarser maps of the first.

    The second backbone has no stem of its own. What is fed to it is scaled by learned factors that start at zero; the
    published models round these factors to half precision, and so does this one.

    Args:
        config: architecture of each of the two backbones.
        out_indices: levels whose maps are returned, ascending, each 0..3.
        frozen_stages: see `InternImage`; applies to both.
        activation_checkpointing: recompute each block in the backward pass.
        backend: operator backend, see `internimage.ops.dcnv3`.

    Source: CBNet, https://arxiv.org/abs/2107.00420; InternImage, section 4.2, arXiv 2211.05778.

    Example:
        >>> from internimage.backbones import variant
        >>> model = CompositeInternImage(variant("internimage_pico"), out_indices=(2, 3))
        >>> [tuple(m.shape[1:]) for m in model(torch.rand(1, 3, 64, 96)).maps]
        [(96, 4, 6), (192, 2, 3)]
    """

    strides = InternImage.strides

    def __init__(
        self,
        config: BackboneConfig,
        *,
        out_indices: tuple[int, ...] = ALL_LEVELS,
        frozen_stages: int = -1,
        activation_checkpointing: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.config = config
        self.out_indices = tuple(out_indices)
        self.backbones = nn.ModuleList(
            InternImage(
                config,
                out_indices=indices,
                frozen_stages=frozen_stages,
                activation_checkpointing=activation_checkpointing,
                backend=backend,
            )
            for indices in (ALL_LEVELS, self.out_indices)
        )
        self.backbones[1].patch_embed = nn.Identity()
        widths = config.widths
        self.feed_scales = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in widths)
        self.feed_convs = nn.ModuleList(
            nn.ModuleList(nn.Identity() if j == i else nn.Conv2d(widths[j], widths[i], 1) for j in range(i, 4))
            for i in range(4)
        )

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the returned maps, in the order of `out_indices`."""
        return tuple(self.config.widths[i] for i in self.out_indices)

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Switch the recomputation of blocks in the backward pass on or off."""
        for backbone in self._both():
            backbone.set_activation_checkpointing(enabled)

    def fuse(self, *, graphs: int = 0) -> CompositeInternImage:
        """Prepare for inference and return self, see `InternImage.fuse`."""
        fuse(self)
        keep_graphs(self, graphs)
        return self

    def forward(self, pixels: Tensor) -> Features:
        """Return the chosen maps of the second backbone, see `InternImage.forward`."""
        self.check(pixels)
        return Features(self.replayed(pixels, lambda pixels: self.forward_both(pixels)[1].maps))

    def check(self, pixels: Tensor) -> None:
        """Raise what `InternImage.forward` promises unless the pixels can be the input."""
        self._both()[0].check(pixels)

    def forward_both(self, pixels: Tensor) -> tuple[Features, Features]:
        """Return the chosen maps of the first and of the second backbone; training looks at both."""
        self.check(pixels)
        first, second = self._both()
        stem = first.pos_drop(first.patch_embed(pixels))
        x, sources = stem, []
        for level in _levels(first):
            x = level(x)
            sources.append(x.permute(0, 3, 1, 2))
            if level.downsample is not None:
                x = level.downsample(x)
        x, maps = stem, []
        for i, level in enumerate(_levels(second)):
            x = level(x + self._feed(i, sources, (x.shape[1], x.shape[2])))
            if i in self.out_indices:
                maps.append(x.permute(0, 3, 1, 2))
            if i == self.out_indices[-1] or level.downsample is None:
                break
            x = level.downsample(x)
        return Features(tuple(sources[i] for i in self.out_indices)), Features(tuple(maps))

    def _feed(self, level: int, sources: list[Tensor], size_hw: tuple[int, int]) -> Tensor:
        """Sum of the maps of the first backbone for one level of the second, (N, H, W, C)."""
        total, convs = sources[level], self.feed_convs[level]
        assert isinstance(convs, nn.ModuleList)
        for conv, source in zip(convs[1:], sources[level + 1 :], strict=True):
            total = total + F.interpolate(conv(source), size=size_hw, mode="nearest")
        scale = self.feed_scales[level]
        rounded = scale + (scale.half().to(scale.dtype) - scale).detach()  # rounded forward, exact backward
        return total.permute(0, 2, 3, 1) * rounded

    def _both(self) -> tuple[InternImage, InternImage]:
        first, second = self.backbones
        assert isinstance(first, InternImage) and isinstance(second, InternImage)
        return first, second


def _levels(backbone: InternImage) -> list[Level]:
    return [level for level in backbone.levels if isinstance(level, Level)]
