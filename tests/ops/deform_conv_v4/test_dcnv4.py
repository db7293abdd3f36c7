"""dcnv4: against an independent float64 oracle, and what the published implementation got wrong."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from internimage.ops import dcnv3, dcnv4
from internimage.ops.deform_conv_v4 import packed_channels

TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
BACKENDS = ["cpp", "reference"]


def make(n=1, h=6, w=5, groups=2, width=4, points=9, out=None, dtype=torch.float64, padded=True) -> list[Tensor]:
    """x and offset_mask, offsets away from pixel lines."""
    channels = packed_channels(groups, points) if padded else 3 * groups * points
    packed = torch.randn(n, *(out or (h, w)), channels, dtype=torch.float64)
    packed = packed.floor() + 0.1 + 0.8 * (packed - packed.floor())
    return [torch.randn(n, h, w, groups * width, dtype=torch.float64).to(dtype), packed.to(dtype)]


def unpack(oracle, x: Tensor, packed: Tensor, *, points=9, **settings) -> Tensor:
    by_group = packed[..., : 3 * settings["groups"] * points].unflatten(-1, (settings["groups"], 3 * points))
    return oracle(x, by_group[..., : 2 * points].unflatten(-1, (points, 2)), by_group[..., 2 * points :], **settings)


CASES = [
    ({"n": 2, "h": 7, "w": 7, "groups": 3, "width": 16}, {}, {}),  # a block of threads spans two images
    ({"n": 3, "h": 7, "w": 7, "groups": 8, "width": 16}, {}, {}),
    ({"h": 8, "w": 6, "out": (4, 3), "n": 2}, {"stride": 2}, {"stride": (2, 2)}),
    ({"h": 9, "w": 8, "out": (3, 8), "groups": 5, "width": 7}, {"stride": (3, 1)}, {"stride": (3, 1)}),
    ({"h": 3, "w": 3, "groups": 80, "width": 16}, {}, {}),  # last stage of FlashInternImage-L: G*C = 1280
    ({"points": 8, "groups": 3}, {"remove_center": True}, {"remove_center": True}),
    ({"points": 25, "width": 3}, {"kernel_size": 5}, {"kernel_size": (5, 5), "padding": (2, 2)}),
    (
        {"points": 4, "h": 7, "w": 7, "out": (8, 8)},
        {"kernel_size": 2, "padding": 1},
        {"kernel_size": (2, 2), "padding": (1, 1)},
    ),
    ({"groups": 1, "width": 33}, {"offset_scale": 0.5}, {"offset_scale": 0.5}),
    ({"groups": 4, "padded": False}, {"dilation": 2}, {"dilation": (2, 2), "padding": (2, 2)}),
    ({"groups": 3}, {"softmax": True}, {"softmax": True}),
    ({"n": 257, "h": 2, "w": 2, "groups": 1, "width": 1}, {}, {}),  # more images than a chunk of the original, odd
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("shape", "settings", "oracle_settings"), CASES, ids=str)
def test_shapes(shape, settings, oracle_settings, backend, compare, window_oracle, poisoned_empty):
    groups = shape.get("groups", 2)
    oracle = partial(unpack, window_oracle, points=shape.get("points", 9), groups=groups, **oracle_settings)
    compare(oracle, partial(dcnv4, groups=groups, **settings, backend=backend), make(**shape), 1e-11)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_dtypes_forward_and_backward(dtype, compare, window_oracle):
    inputs = make(n=2, h=6, w=7, groups=3, width=17, dtype=dtype)
    operator = partial(dcnv4, groups=3, backend="cpp")
    compare(partial(unpack, window_oracle, groups=3), operator, inputs, TOLERANCE[dtype])


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_do_not_depend_on_the_batch(backend):
    x, packed = make(n=3, h=7, w=7, groups=4, width=16, dtype=torch.float32)
    together = dcnv4(x, packed, groups=4, backend=backend)
    alone = torch.cat([dcnv4(x[i : i + 1], packed[i : i + 1], groups=4, backend=backend) for i in range(3)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_is_not_read_and_has_no_gradient(backend):
    x, packed = make(groups=1, dtype=torch.float32, width=8)  # 27 channels, padded to 32
    packed[..., 27:] = torch.nan
    packed.requires_grad_()
    y = dcnv4(x, packed, groups=1, backend=backend)
    y.sum().backward()
    assert bool(y.isfinite().all())
    assert torch.equal(packed.grad[..., 27:], torch.zeros_like(packed.grad[..., 27:]))


def test_zero_weights_give_zero():
    x, packed = make(dtype=torch.float32)
    assert torch.equal(dcnv4(x, torch.zeros_like(packed), groups=2), torch.zeros_like(x))


def test_equals_dcnv3_on_the_same_values():
    x, packed = make(n=2, groups=3, dtype=torch.float32)
    by_group = packed[..., :81].unflatten(-1, (3, 27))
    offset, mask = by_group[..., :18].flatten(3), by_group[..., 18:].flatten(3)
    for softmax in (False, True):
        same = dcnv3(x, offset, mask, groups=3, softmax=softmax, backend="cpp")
        torch.testing.assert_close(dcnv4(x, packed, groups=3, softmax=softmax, backend="cpp"), same, rtol=0, atol=0)


def test_slice_of_a_fused_projection_is_read_in_place(monkeypatch):
    joined = torch.randn(2, 5, 6, 8 + 56)
    x, packed = joined.split((8, 56), dim=-1)
    want = dcnv4(x.contiguous(), packed.contiguous(), groups=2, backend="cpp")

    def refuse(self: Tensor, *args: object, **kwargs: object) -> Tensor:
        raise AssertionError("copied")

    monkeypatch.setattr(Tensor, "contiguous", refuse)
    assert torch.equal(dcnv4(x, packed, groups=2, backend="cpp"), want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_batch(backend):
    inputs = [torch.zeros(0, 4, 4, c, requires_grad=True) for c in (8, 56)]
    y = dcnv4(*inputs, groups=2, backend=backend)
    y.sum().backward()
    assert y.shape == (0, 4, 4, 8)
    assert inputs[1].grad.shape == (0, 4, 4, 56)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (1, 6, 5, 48),
            r"must have shape \(1, 6, 5, 56\).*unpadded with 54 channels, given \(1, 6, 5, 48\)",
        ),
        ((1, 3, 3, 56), "offset_mask must have shape"),
        ((2, 6, 5, 56), "offset_mask must have shape"),
    ],
)
def test_wrong_shapes(shape, message):
    with pytest.raises(ValueError, match=message):
        dcnv4(torch.rand(1, 6, 5, 8), torch.rand(shape), groups=2)


@pytest.mark.parametrize(("groups", "points", "channels"), [(4, 9, 112), (8, 9, 216), (80, 9, 2160), (5, 8, 120)])
def test_packed_channels(groups, points, channels):
    assert packed_channels(groups, points) == channels
