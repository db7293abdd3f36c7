"""Convolution, norm and activation as one module.

Shape legend: N images, C channels, H W map. Maps are (N, C, H, W), best channels last in memory.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

NUM_NORM_GROUPS = 32
NormKind = Literal["none", "batch", "layer", "group"]


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of an (N, C, H, W) map."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape; both permutes are views."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """A convolution that keeps the size (at stride 1), followed by a norm and, if wished, ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd side of the kernel.
        stride: step of the kernel.
        norm: "batch", "layer" over the channels, "group" with 32 groups, or "none".
        relu: end with ReLU.
        bias: give the convolution a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        norm: NormKind = "batch",
        relu: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=bias)
        self.norm = build_norm(norm, out_channels)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, out_channels, H, W), the sides divided by the stride and rounded up."""
        return self.finish(self.conv(x))

    def finish(self, x: Tensor) -> Tensor:
        """Apply norm and ReLU to what the convolution gave; `x` may be overwritten."""
        if self.norm is not None:
            x = self.norm(x)
        return F.relu(x, inplace=True) if self.relu else x


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that says what to do where a batch has a single value for each channel, which has no variance."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape.

        Raises:
            ValueError: training sees one image with a 1 x 1 map.
        """
        if self.training and input.numel() == input.shape[1]:
            raise ValueError(
                f"in training, batch norm needs more than one value for each channel, given {tuple(input.shape)}: "
                "one image that the head has reduced to 1 x 1. Give at least two images in a batch (data.batch_size=2; "
                "optimizer.accumulation_steps does not help) or larger ones"
            )
        return super().forward(input)


def build_norm(kind: NormKind, channels: int) -> nn.Module | None:
    """Return a norm for maps with `channels`, None for "none".

    Raises:
        ValueError: no such norm.
    """
    if kind == "none":
        return None
    if kind == "group":
        return nn.GroupNorm(NUM_NORM_GROUPS, channels)
    if kind == "layer":
        return ChannelNorm(channels)
    if kind == "batch":
        return BatchNorm(channels)
    raise ValueError(f"norm must be 'none', 'batch', 'layer' or 'group', given {kind!r}")
