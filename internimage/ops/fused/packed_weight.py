"""Weights of a linear layer in the blocked layout of the compiled product.

Shapes: I inputs, O outputs; s inputs share 32 bits, one in float32 and two in bfloat16.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.ops.runtime import library

BLOCK = 16  # outputs side by side


class PackedWeight(NamedTuple):
    """Weights and biases of a linear layer, see `pack`.

    Args:
        blocks: (ceil(O / 16), I / s, 16, s) weights, zeros beyond O.
        bias: (ceil(O / 16) * 16,) float32, zeros beyond O and for a layer without biases.
        inputs: I.
        outputs: O.
    """

    blocks: Tensor
    bias: Tensor
    inputs: int
    outputs: int


class ConvWindow(NamedTuple):
    """The window of a convolution: side of the kernel, step, zeros around the map."""

    kernel_size: int
    stride: int
    padding: int

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides of the output, at least 0.

        Example:
            >>> ConvWindow(3, 2, 1).output_size(7, 8)
            (4, 4)
        """
        steps = ((side + 2 * self.padding - self.kernel_size) // self.stride + 1 for side in (height, width))
        out_height, out_width = (max(0, step) for step in steps)
        return out_height, out_width


def missing_reason(weight: Tensor) -> str | None:
    """Why the compiled product cannot take this (O, I) weight, or should not; None when it can."""
    if weight.numel() == 0 or weight.shape[1] % _step(weight.dtype):
        shape = tuple(weight.shape)
        return f"the compiled product needs weights, and an even number of inputs in bfloat16, given {shape}"
    return support_reason(weight.device.type, weight.dtype)


def support_reason(device: str, dtype: torch.dtype) -> str | None:
    """Why products on this device type and in this dtype are not the compiled ones; None where they are."""
    if device != "cpu":
        return f"the compiled product runs on cpu tensors, given {device}"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"the compiled product supports float32 and bfloat16, given {dtype}"
    return library.missing_reason() or library.linear_missing_reason(dtype)


def pack(weight: Tensor, bias: Tensor | None) -> PackedWeight:
    """Copy weights (O, I) and biases (O,) into blocks.

    Raises:
        ValueError: the compiled product cannot take them; the message says why.

    Example:
        >>> weight = torch.ones(20, 6)
        >>> if missing_reason(weight) is None:  # the processor has AVX-512
        ...     assert pack(weight, None).blocks.shape == (2, 6, 16, 1)
    """
    if (reason := missing_reason(weight)) is not None:
        raise ValueError(f"cannot pack these weights: {reason}")
    outputs, inputs = weight.shape
    padding = -outputs % BLOCK
    step = _step(weight.dtype)
    rows = F.pad(weight.detach(), (0, 0, 0, padding)).view(-1, BLOCK, inputs // step, step)
    values = weight.new_zeros(outputs) if bias is None else bias.detach()
    return PackedWeight(
        rows.permute(0, 2, 1, 3).contiguous(), F.pad(values.float(), (0, padding)).contiguous(), inputs, outputs
    )


def patch_weight(weight: Tensor) -> Tensor:
    """Weights (O, I, k, k) of a convolution as those of a linear layer on its patches, (O, k * k * I).

    The inputs of a patch stand in the order (row, column, channel); zeros fill up the last 32 bits.

    Example:
        >>> patch_weight(torch.ones(4, 3, 3, 3).bfloat16()).shape
        torch.Size([4, 28])
    """
    rows = weight.permute(0, 2, 3, 1).flatten(1)
    return F.pad(rows, (0, pad_inputs(rows.shape[1], weight.dtype) - rows.shape[1]))


def pad_inputs(inputs: int, dtype: torch.dtype) -> int:
    """The next number of inputs that fills whole steps of 32 bits."""
    return inputs + -inputs % _step(dtype)


def _step(dtype: torch.dtype) -> int:
    return max(1, 4 // dtype.itemsize)
