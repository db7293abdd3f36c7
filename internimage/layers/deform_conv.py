"""The operator modules: projections, offsets and weights around a deformable convolution.

Shape legend: N images, H W map, C channels, G groups, K points. Maps are channels last, (N, H, W, C).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.layers.hooks import has_hooks
from internimage.layers.layer_norm import LayerNorm, norm_gelu
from internimage.ops import deform_conv_v3, deform_conv_v4
from internimage.ops.deform_conv_v4 import packed_channels
from internimage.ops.sampling import make_window

NORM_EPS = 1e-6


class DeformConv(nn.Module, ABC):
    """What both modules share: the settings of the sampling window and the optional gate; arguments as in `DCNv3`."""

    softmax = True  # over the weights of a group

    def __init__(
        self,
        channels: int,
        groups: int,
        kernel_size: int,
        offset_scale: float,
        center_feature_scale: bool,
        remove_center: bool,
        backend: str,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.points = kernel_size * kernel_size - int(remove_center)
        self.backend = backend
        self.window = make_window(kernel_size, 1, None, 1, groups, offset_scale, remove_center, self.softmax)
        self.center_feature_scale_proj = nn.Linear(channels, groups) if center_feature_scale else None
        self.output_proj: nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, H, W, C)."""
        return self.output_proj(self.attend(x))

    def without_bias(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map (N, H, W, C) to (N, H, W, C), and return a bias (C,) that is still to be added, if it may be."""
        y, projection = self.attend(x), self.output_proj
        if type(projection) is not nn.Linear or projection.bias is None or has_hooks(projection):
            return projection(y), None
        return F.linear(y, projection.weight), projection.bias

    @abstractmethod
    def attend(self, x: Tensor) -> Tensor:
        """Everything before the output projection: (N, H, W, C) to (N, H, W, C)."""

    def extra_repr(self) -> str:
        """Show the settings that the child modules do not."""
        window = self.window
        settings = f"kernel_size={window.kernel_size[0]}, groups={window.groups}, offset_scale={window.offset_scale!r}"
        return f"{settings}, remove_center={window.remove_center}, backend={self.backend!r}"


class DCNv3(DeformConv):
    """Deformable convolution v3 with its projections.

    Offsets and weights come from a depth-wise convolution of the input, followed by norm and GELU; the values are a
    linear projection of the input. The published initialization keeps offsets at zero, so that a fresh module samples
    the regular grid with equal weights.

    Args:
        channels: width C of input and output.
        groups: sampling groups G; must divide C.
        kernel_size: side of the sampling grid; K = kernel_size**2 points (one fewer with `remove_center`).
        dw_kernel_size: side of the depth-wise convolution, None for `kernel_size`.
        offset_scale: factor on grid and offsets.
        center_feature_scale: mix the output with the values by a learned gate for each group.
        remove_center: drop the center point of the grid.
        through_dcnv4: run the same weights and the same function through the dcnv4 operator.
        backend: operator backend, see `internimage.ops.dcnv3`.

    Source: InternImage, section 3.1, arXiv 2211.05778.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        kernel_size: int = 3,
        dw_kernel_size: int | None = None,
        offset_scale: float = 1.0,
        center_feature_scale: bool = False,
        remove_center: bool = False,
        through_dcnv4: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(channels, groups, kernel_size, offset_scale, center_feature_scale, remove_center, backend)
        self.through_dcnv4 = through_dcnv4
        self.dw_conv = depthwise_conv(channels, dw_kernel_size or kernel_size)
        self.dw_norm = LayerNorm(channels, eps=NORM_EPS, before_product=True)
        self.act = nn.GELU()
        self.offset = nn.Linear(channels, groups * self.points * 2)
        self.mask = nn.Linear(channels, groups * self.points)
        self.input_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Apply the published initialization: zero offsets and logits, Xavier projections, closed gates."""
        zero_weights(self.offset, self.mask, self.center_feature_scale_proj)
        xavier_weights(self.input_proj, self.output_proj)

    def attend(self, x: Tensor) -> Tensor:
        """Everything before the output projection: (N, H, W, C) to (N, H, W, C)."""
        value, query = self.input_proj(x), self.query(x)
        offset, mask = self.offset_and_mask(query)
        if self.through_dcnv4:
            y = deform_conv_v4.run(value, pack_offset_mask(offset, mask, self.groups), self.window, self.backend)
        else:
            y = deform_conv_v3.run(value, offset, mask, self.window, self.backend)
        if self.center_feature_scale_proj is not None:
            y = mix_by_gate(y, value, self.center_feature_scale_proj(query))
        return y

    def query(self, x: Tensor) -> Tensor:
        """What offsets and weights are computed from, (N, H, W, C)."""
        return norm_gelu(channels_last_conv(self.dw_conv, x), self.dw_norm, self.act)

    def offset_and_mask(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (N, H, W, G*K*2) and logits of the weights (N, H, W, G*K)."""
        return self.offset(query), self.mask(query)


class DCNv4(DeformConv):
    """Deformable convolution v4 with its projections: unbounded weights, offsets and weights from one linear layer.

    Without a depth-wise convolution the offsets of a pixel see that pixel alone. The published initialization keeps
    offsets and weights at zero: without a softmax a fresh module returns its output bias.

    Args:
        channels: width C of input and output.
        groups: sampling groups G; must divide C.
        kernel_size: side of the sampling grid; K = kernel_size**2 points (one fewer with `remove_center`).
        dw_kernel_size: side of the depth-wise convolution, None for no convolution (unlike `DCNv3`).
        offset_scale: factor on grid and offsets.
        center_feature_scale: mix the output with the values by a gate computed from the operator's output.
        remove_center: drop the center point of the grid.
        output_bias: whether the output projection has a bias.
        backend: operator backend, see `internimage.ops.dcnv4`.

    Source: DCNv4, section 3, arXiv 2401.06197.
    """

    softmax = False

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        kernel_size: int = 3,
        dw_kernel_size: int | None = None,
        offset_scale: float = 1.0,
        center_feature_scale: bool = False,
        remove_center: bool = False,
        output_bias: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(channels, groups, kernel_size, offset_scale, center_feature_scale, remove_center, backend)
        self.offset_mask_dw = depthwise_conv(channels, dw_kernel_size) if dw_kernel_size else None
        self.offset_mask = nn.Linear(channels, packed_channels(groups, self.points))
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels, bias=output_bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Apply the published initialization: zero offsets and weights, Xavier projections, closed gates."""
        zero_weights(self.offset_mask, self.center_feature_scale_proj)
        xavier_weights(self.value_proj, self.output_proj)

    def attend(self, x: Tensor) -> Tensor:
        """Everything before the output projection: (N, H, W, C) to (N, H, W, C)."""
        value, offset_mask = self.value_and_offset_mask(x)
        y = deform_conv_v4.run(value, offset_mask, self.window, self.backend)
        if self.center_feature_scale_proj is not None:
            y = mix_by_gate(y, value, self.center_feature_scale_proj(y))
        return y

    def value_and_offset_mask(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (N, H, W, C) and packed offsets and weights (N, H, W, P)."""
        query = x if self.offset_mask_dw is None else channels_last_conv(self.offset_mask_dw, x)
        return self.value_proj(x), self.offset_mask(query)


def depthwise_conv(channels: int, size: int) -> nn.Conv2d:
    """A depth-wise convolution that keeps the size of a map, for odd kernels."""
    return nn.Conv2d(channels, channels, size, padding=(size - 1) // 2, groups=channels)


def channels_last_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a convolution to an (N, H, W, C) map and return one; both permutes are views."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def zero_weights(*layers: nn.Linear | None) -> None:
    """Set weights and biases to zero, so that the layers return zero."""
    for layer in layers:
        if layer is not None:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


def xavier_weights(*layers: nn.Linear) -> None:
    """Draw weights from Xavier's uniform distribution and set biases to zero."""
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def pack_offset_mask(offset: Tensor, mask: Tensor, groups: int) -> Tensor:
    """Rearrange dcnv3's offsets (N, H, W, G*K*2) and weights (N, H, W, G*K) to dcnv4's packed layout (N, H, W, P)."""
    packed = torch.cat([offset.unflatten(-1, (groups, -1)), mask.unflatten(-1, (groups, -1))], dim=-1).flatten(-2)
    return F.pad(packed, (0, packed_channels(groups, mask.shape[-1] // groups) - packed.shape[-1]))


def mix_by_gate(y: Tensor, value: Tensor, logits: Tensor) -> Tensor:
    """Blend (N, H, W, C) outputs and values by a sigmoid gate for each group; logits are (N, H, W, G)."""
    groups = logits.shape[-1]
    gate = torch.sigmoid(logits).unsqueeze(-1)  # (N, H, W, G, 1)
    return torch.lerp(y.unflatten(-1, (groups, -1)), value.unflatten(-1, (groups, -1)), gate).flatten(-2)
