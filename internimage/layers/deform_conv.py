"""The operator modules: projections, offsets and weights around a deformable convolution.

Shape legend: N images, H W map, C channels, G groups, K points. Maps are channels last, (N, H, W, C).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.layers.layer_norm import LayerNorm
from internimage.layers.packed_linear import Packable, packed_weights
from internimage.ops import dcnv3, dcnv4
from internimage.ops.deform_conv_v4 import packed_channels
from internimage.ops.fused import Residual, add_shortcut_, depthwise_norm_gelu, packed_perceptron

NORM_EPS = 1e-6


class DeformConv(Packable):
    """What both modules share: the settings of the sampling window and the optional gate.

    Args:
        channels: width C of input and output.
        groups: sampling groups G; must divide C.
        kernel_size: side of the sampling grid; K = kernel_size**2 points (one fewer with `remove_center`).
        offset_scale: factor on grid and offsets.
        center_feature_scale: mix the operator's output with the values by a learned gate for each group.
        remove_center: drop the centre point of the grid.
        backend: operator backend, see `internimage.ops.dcnv3`.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
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
        self.window: dict[str, Any] = {
            "kernel_size": kernel_size,
            "groups": groups,
            "offset_scale": offset_scale,
            "remove_center": remove_center,
        }
        self.center_feature_scale_proj = nn.Linear(channels, groups) if center_feature_scale else None
        self.output_proj: nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, H, W, C)."""
        return self._project(self._attend(x, fuse=False))

    def join(self, x: Tensor, shortcut: Tensor, residual: Residual) -> tuple[Tensor, Tensor | None]:
        """For inference: this layer as a residual branch, with the fused steps of `internimage.ops.fused`.

        Args:
            x: (N, H, W, C) contiguous map.
            shortcut: (N, H, W, C) contiguous map.
            residual: scale and norms.

        Returns:
            shortcut + gamma * norm(self(x)), and `next_norm` of it, None without `next_norm`.
        """
        y, products = self._attend(x, fuse=True), self.products
        if products and (layers := packed_weights(products["output"])):
            return packed_perceptron(y, layers, shortcut, residual)
        y = self._project(y)
        normed = add_shortcut_(y, shortcut, residual)
        return y, normed

    @abstractmethod
    def _attend(self, x: Tensor, *, fuse: bool) -> Tensor:
        """Everything before the output projection; `fuse` takes the inference-only steps."""

    def _project(self, y: Tensor) -> Tensor:
        products = self.products
        return products["output"](y) if products else self.output_proj(y)

    def extra_repr(self) -> str:
        """Show the settings that the child modules do not."""
        settings = {**self.window, "backend": self.backend}
        return ", ".join(f"{name}={value!r}" for name, value in settings.items())


class DCNv3(DeformConv):
    """Deformable convolution v3 with its projections.

    Offsets and weights come from a depth-wise convolution of the input, followed by norm and GELU; the values are a
    linear projection of the input. The published initialisation keeps offsets at zero, so that a fresh module samples
    the regular grid with equal weights.

    Args:
        channels: width C of input and output.
        groups: sampling groups G; must divide C.
        kernel_size: side of the sampling grid; K = kernel_size**2 points (one fewer with `remove_center`).
        dw_kernel_size: side of the depth-wise convolution, None for `kernel_size`.
        offset_scale: factor on grid and offsets.
        center_feature_scale: mix the output with the values by a learned gate for each group.
        remove_center: drop the centre point of the grid.
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
        super().__init__(
            channels,
            groups,
            kernel_size=kernel_size,
            offset_scale=offset_scale,
            center_feature_scale=center_feature_scale,
            remove_center=remove_center,
            backend=backend,
        )
        self.through_dcnv4 = through_dcnv4
        dw_size = dw_kernel_size or kernel_size
        self.dw_conv = nn.Conv2d(channels, channels, dw_size, padding=(dw_size - 1) // 2, groups=channels)
        self.dw_norm = LayerNorm(channels, eps=NORM_EPS)
        self.act = nn.GELU()
        self.offset = nn.Linear(channels, groups * self.points * 2)
        self.mask = nn.Linear(channels, groups * self.points)
        self.input_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Apply the published initialisation: zero offsets and logits, Xavier projections, closed gates."""
        zero_weights(self.offset, self.mask, self.center_feature_scale_proj)
        xavier_weights(self.input_proj, self.output_proj)

    def packable(self) -> dict[str, tuple[nn.Linear, ...]]:
        """Name the products of this module; offsets and weights come from one."""
        return {
            "input": (self.input_proj,),
            "offset_mask": (self.offset, self.mask),
            "output": (self.output_proj,),
        }

    def _attend(self, x: Tensor, *, fuse: bool) -> Tensor:
        products = self.products
        value = products["input"](x) if products else self.input_proj(x)
        if fuse:
            query = depthwise_norm_gelu(x, self.dw_conv, self.dw_norm)
        else:
            query = self.dw_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            query = self.act(self.dw_norm(query))
        if products:
            joined = products["offset_mask"]
            offset, mask = joined(query).split(joined.sizes, dim=-1)  # views; the operator reads them in place
        else:
            offset, mask = self.offset(query), self.mask(query)
        y = self._sample(value, offset, mask)
        if self.center_feature_scale_proj is not None:
            y = mix_by_gate(y, value, self.center_feature_scale_proj(query))
        return y

    def _sample(self, value: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """Run the operator on values (N, H, W, C), offsets and logits."""
        operator, inputs = dcnv3, (value, offset, mask)
        if self.through_dcnv4:
            operator, inputs = dcnv4, (value, pack_offset_mask(offset, mask, self.groups))
        return operator(*inputs, **self.window, softmax=True, backend=self.backend)


class DCNv4(DeformConv):
    """Deformable convolution v4 with its projections: unbounded weights, offsets and weights from one product.

    Without a depth-wise convolution the offsets of a pixel see that pixel alone. The published initialisation keeps
    offsets and weights at zero: without a softmax a fresh module answers with its output bias.

    Args:
        channels: width C of input and output.
        groups: sampling groups G; must divide C.
        kernel_size: side of the sampling grid; K = kernel_size**2 points (one fewer with `remove_center`).
        dw_kernel_size: side of the depth-wise convolution, None for no convolution (unlike `DCNv3`).
        offset_scale: factor on grid and offsets.
        center_feature_scale: mix the output with the values by a gate computed from the operator's output.
        remove_center: drop the centre point of the grid.
        output_bias: whether the output projection has a bias.
        backend: operator backend, see `internimage.ops.dcnv4`.

    Source: DCNv4, section 3, arXiv 2401.06197.
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
        output_bias: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            channels,
            groups,
            kernel_size=kernel_size,
            offset_scale=offset_scale,
            center_feature_scale=center_feature_scale,
            remove_center=remove_center,
            backend=backend,
        )
        self.offset_mask_dw = (
            nn.Conv2d(channels, channels, dw_kernel_size, padding=(dw_kernel_size - 1) // 2, groups=channels)
            if dw_kernel_size
            else None
        )
        self.offset_mask = nn.Linear(channels, packed_channels(groups, self.points))
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels, bias=output_bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Apply the published initialisation: zero offsets and weights, Xavier projections, closed gates."""
        zero_weights(self.offset_mask, self.center_feature_scale_proj)
        xavier_weights(self.value_proj, self.output_proj)

    def packable(self) -> dict[str, tuple[nn.Linear, ...]]:
        """Name the products of this module; without a depth-wise convolution values, offsets and weights share one."""
        inputs = {"value": (self.value_proj,), "offset_mask": (self.offset_mask,)}
        if self.offset_mask_dw is None:
            inputs = {"value_offset_mask": (self.value_proj, self.offset_mask)}
        return {**inputs, "output": (self.output_proj,)}

    def _attend(self, x: Tensor, *, fuse: bool) -> Tensor:  # there are no steps to fuse
        value, offset_mask = self._inputs(x)
        y = dcnv4(value, offset_mask, **self.window, backend=self.backend)
        if self.center_feature_scale_proj is not None:
            y = mix_by_gate(y, value, self.center_feature_scale_proj(y))
        return y

    def _inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (N, H, W, C) and packed offsets and weights (N, H, W, P)."""
        products = self.products
        if self.offset_mask_dw is None:
            if products:
                joined = products["value_offset_mask"]
                value, offset_mask = joined(x).split(joined.sizes, dim=-1)  # views; the operator reads them in place
                return value, offset_mask
            return self.value_proj(x), self.offset_mask(x)
        query = self.offset_mask_dw(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        if products:
            return products["value"](x), products["offset_mask"](query)
        return self.value_proj(x), self.offset_mask(query)


def zero_weights(*layers: nn.Linear | None) -> None:
    """Set weights and biases to zero, so that the layers answer zero."""
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
