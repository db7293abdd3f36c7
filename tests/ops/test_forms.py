"""The words of others for our operators: `deform_conv2d` and `grid_sample` give what the reference gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from internimage.ops import dcnv3, dcnv4
from internimage.ops.deform_conv_v3 import reference
from internimage.ops.deform_conv_v4 import packed_channels
from internimage.ops.forms import DEFORM_CONV, GRID_SAMPLE, deform_conv
from internimage.ops.sampling import Pair, make_window

SWITCHES = list(itertools.product((1.0, 2.0), (False, True), (False, True)))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (5, 3)], ids=str)
@pytest.mark.parametrize("stride, dilation", [(1, 1), ((2, 1), (1, 2))], ids=str)
@pytest.mark.parametrize("scale, remove_center, softmax", SWITCHES)
def test_deform_conv_is_the_reference(
    kernel: Pair, stride: Pair, dilation: Pair, scale: float, remove_center: bool, softmax: bool
) -> None:
    window = make_window(kernel, stride, None, dilation, 3, scale, remove_center, softmax)
    x = torch.randn(2, 9, 7, 12, dtype=torch.float64)
    size = (2, *window.output_size(9, 7))
    offset = 2 * torch.randn(*size, 3 * window.points * 2, dtype=torch.float64)
    mask = torch.randn(*size, 3 * window.points, dtype=torch.float64)
    expected = reference.forward(x, offset, mask, window)
    torch.testing.assert_close(deform_conv(x, offset, mask, window), expected, rtol=1e-10, atol=1e-10)
    single = deform_conv(x.float(), offset.float(), mask.float(), window)
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)


class Both(nn.Module):
    """One call of each window operator."""

    def forward(self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
        """Sum what both give."""
        return dcnv3(x, offset, mask, groups=2, softmax=True) + dcnv4(x, packed, groups=2, offset_scale=2.0)


@pytest.mark.parametrize("forms", [GRID_SAMPLE, DEFORM_CONV], ids=["grid_sample", "deform_conv"])
def test_nodes_of_a_program_become_ordinary_operators(forms: dict[Any, Callable[..., Any]]) -> None:
    def inputs(n: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
        channels = (8, 36, 18, packed_channels(2, 9))
        return tuple(torch.randn(n, height, width, c) for c in channels)

    free = {0: torch.export.Dim("n"), 1: torch.export.Dim("h", min=2), 2: torch.export.Dim("w", min=2)}
    program = torch.export.export(Both(), inputs(2, 5, 6), dynamic_shapes=(free,) * 4, strict=False)
    assert "internimage" in str(program.graph)
    program = program.run_decompositions(forms)
    assert "internimage" not in str(program.graph)
    for size in ((1, 7, 4), (3, 6, 6)):
        given = inputs(*size)
        torch.testing.assert_close(program.module()(*given), Both()(*given), rtol=1e-5, atol=1e-5)
