"""Convolution, norm and activation as one module.

Shape legend: N images, C channels, H W map. Maps are (N, C, H, W), best channels last in memory.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

NUM_NORM_GROUPS = 32


class ConvNorm(nn.Module):
    """A convolution that keeps the size, followed by a norm and, if wished, ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd side of the kernel.
        norm: "batch", or "group" with 32 groups.
        relu: end with ReLU.
        bias: give the convolution a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        norm: Literal["batch", "group"] = "batch",
        relu: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        if norm == "group":
            self.norm: nn.Module = nn.GroupNorm(NUM_NORM_GROUPS, out_channels)
        else:
            self.norm = nn.BatchNorm2d(out_channels)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, out_channels, H, W)."""
        x = self.norm(self.conv(x))
        return F.relu(x, inplace=True) if self.relu else x
