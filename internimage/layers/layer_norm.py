"""Layer norm over channels, the last axis of a channels-last map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SLOW_CHANNELS = 48


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` over the last axis of (..., C).

    Under autocast on a CPU, torch is slow on short rows of bfloat16 numbers, which a narrow network has many of: they
    pass through float32.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize each row of (..., C)."""
        if (
            input.dtype in (torch.bfloat16, torch.float16)
            and self.weight.dtype == torch.float32
            and input.device.type == "cpu"
            and input.shape[-1] < SLOW_CHANNELS
        ):
            return super().forward(input.float()).to(input.dtype)
        return super().forward(input)
