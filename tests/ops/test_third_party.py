"""dcnv3 and dcnv4 against `torchvision.ops.deform_conv2d`, which shares nothing with them, over random geometries."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from internimage.ops import dcnv3, dcnv4

# torch itself loads scripts when it first differentiates forward.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")


def geometry(seed: int) -> dict[str, Any]:
    """Sides, windows and groups of one case; rectangular ones too."""
    draw = random.Random(seed)
    kernel = (draw.randint(1, 5), draw.randint(1, 5))
    dilation = (draw.randint(1, 2), draw.randint(1, 2))
    return {
        "groups": draw.randint(1, 4),
        "width": draw.randint(1, 9),
        "batch": draw.randint(1, 3),
        "height": draw.randint(9, 12),
        "columns": draw.randint(9, 12),
        "spread": draw.choice([0.5, 3.0, 20.0]),
        "window": {
            "kernel_size": kernel,
            "stride": (draw.randint(1, 2), draw.randint(1, 2)),
            "padding": (draw.randint(0, 2), draw.randint(0, 2)),
            "dilation": dilation,
        },
    }


def torchvision_sum(x: Tensor, offset: Tensor, mask: Tensor, *, groups: int, window: dict[str, Any]) -> Tensor:
    """The same sum: depth-wise weights of one; its points run by rows and its pairs are (y, x)."""
    kh, kw = window["kernel_size"]
    shifts = offset.unflatten(-1, (groups, kw, kh, 2)).transpose(4, 5).flip(-1).flatten(3).permute(0, 3, 1, 2)
    shares = mask.unflatten(-1, (groups, kw, kh)).transpose(4, 5).flatten(3).permute(0, 3, 1, 2)
    settings = {name: window[name] for name in ("stride", "padding", "dilation")}
    y = deform_conv2d(x.permute(0, 3, 1, 2), shifts, x.new_ones(x.shape[3], 1, kh, kw), mask=shares, **settings)
    return y.permute(0, 2, 3, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("seed", range(8))
def test_deform_conv2d(seed, backend, dtype):
    case = geometry(seed)
    groups, window = case["groups"], case["window"]
    points = window["kernel_size"][0] * window["kernel_size"][1]
    x = torch.randn(case["batch"], case["height"], case["columns"], groups * case["width"], dtype=torch.float64)
    sides = [
        (side + 2 * window["padding"][i] - window["dilation"][i] * (window["kernel_size"][i] - 1) - 1)
        // window["stride"][i]
        + 1
        for i, side in enumerate(x.shape[1:3])
    ]
    offset = case["spread"] * torch.randn(case["batch"], *sides, groups * points * 2, dtype=torch.float64)
    mask = torch.rand(case["batch"], *sides, groups * points, dtype=torch.float64)
    packed = torch.cat((offset.unflatten(-1, (groups, -1)), mask.unflatten(-1, (groups, -1))), dim=-1).flatten(3)
    exact = [tensor.requires_grad_() for tensor in (x, offset, mask)]
    want = torchvision_sum(*exact, groups=groups, window=window)
    upstream = torch.randn_like(want)
    expected = [want.detach(), *torch.autograd.grad(want, exact, upstream)]
    tolerance = 1e-12 if dtype == torch.float64 else 5e-6 if backend == "cpp" else 1e-4

    def check(function: Any, *tensors: Tensor, expected: list[Tensor]) -> None:
        leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
        y = function(*leaves, groups=groups, backend=backend, **window)
        found = [y, *torch.autograd.grad(y, leaves, upstream.to(dtype))]
        for index, (a, b) in enumerate(zip(expected, found, strict=True)):
            difference = (a - b.detach().double()).abs()
            if index == 2 and dtype == torch.float32:  # rounding may move a point over a pixel line: few, not all
                assert float((difference > 1e-3 * a.abs().max()).double().mean()) < 0.01
            else:
                assert float(difference.max()) <= tolerance * max(1.0, float(a.abs().max()))

    check(dcnv3, x, offset, mask, expected=expected)
    packed_gradient = torch.cat(
        (expected[2].unflatten(-1, (groups, -1)), expected[3].unflatten(-1, (groups, -1))), dim=-1
    ).flatten(3)
    check(dcnv4, x, packed, expected=[expected[0], expected[1], packed_gradient])


@pytest.mark.parametrize("operator", [dcnv3, dcnv4], ids=["dcnv3", "dcnv4"])
def test_gradcheck_in_every_mode(operator):
    size = {"kernel_size": (1, 2), "groups": 1, "padding": (0, 1), "stride": (2, 1)}
    channels = (6,) if operator is dcnv4 else (4, 2)
    tensors = [torch.randn(1, 2, 2, 1, dtype=torch.float64), *(torch.randn(1, 1, 3, c).double() for c in channels)]
    leaves = [tensor.requires_grad_() for tensor in tensors]
    call = partial(operator, **size, backend="cpp")
    assert torch.autograd.gradcheck(call, leaves, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, leaves, check_fwd_over_rev=True, fast_mode=True)
