"""ms_deform_attn: every backend against an independent float64 oracle, forward and every gradient."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from internimage.ops import ms_deform_attn
from internimage.ops.runtime import library
from tests.threads import assert_same_bits

TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}
BACKENDS = ["cpp", "reference"]


def make(n=1, queries=5, heads=2, width=4, points=3, shapes=((4, 5), (2, 3)), dtype=torch.float64) -> list[Tensor]:
    """value, locations (some outside 0..1, none on a pixel line) and raw weights."""
    value = torch.randn(n, sum(h * w for h, w in shapes), heads, width, dtype=torch.float64)
    sizes = torch.tensor(shapes, dtype=torch.float64).flip(-1)[:, None]  # (L, 1, 2)
    pixels = (1.5 * torch.rand(n, queries, heads, len(shapes), points, 2, dtype=torch.float64) - 0.25) * sizes
    pixels = pixels.floor() + 0.1 + 0.8 * (pixels - pixels.floor()) + 0.5
    weights = torch.randn(n, queries, heads, len(shapes), points, dtype=torch.float64)
    return [tensor.to(dtype) for tensor in (value, pixels / sizes, weights)]


def call(function, shapes, value: Tensor, locations: Tensor, weights: Tensor, **settings) -> Tensor:
    return function(value, shapes, locations, weights, **settings)


CASES = [
    {"n": 2, "queries": 13, "heads": 8, "width": 16, "points": 4, "shapes": ((5, 7),)},
    {"queries": 11, "heads": 8, "width": 32, "points": 4, "shapes": ((8, 6), (4, 3))},
    {"n": 2, "queries": 9, "width": 5, "points": 8, "shapes": ((7, 9), (4, 5), (2, 3), (1, 1))},
    {"queries": 1, "heads": 1, "width": 1, "points": 1, "shapes": ((1, 1),)},
    {"queries": 70, "heads": 3, "width": 9, "points": 2, "shapes": ((1, 12), (9, 1))},
    {"queries": 4, "heads": 40, "width": 2, "points": 5, "shapes": ((3, 3), (2, 2), (1, 3))},
    {"queries": 3, "heads": 2, "width": 70, "points": 1, "shapes": ((6, 6),) * 6},
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("softmax", [False, True])
def test_shapes(case, softmax, backend, compare, level_oracle, poisoned_empty):
    shapes = case["shapes"]
    oracle = partial(call, level_oracle, shapes, softmax=softmax)
    compare(oracle, partial(call, ms_deform_attn, shapes, softmax=softmax, backend=backend), make(**case), 1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_locations_in_pixels(backend, compare, level_oracle):
    shapes = ((4, 5), (2, 3))
    value, locations, weights = make(n=2, shapes=shapes)
    pixels = locations * torch.tensor(shapes).flip(-1)[:, None]
    oracle = partial(call, level_oracle, shapes, normalized=False)
    operator = partial(call, ms_deform_attn, shapes, normalized=False, backend=backend)
    compare(oracle, operator, [value, pixels, weights], 1e-11)
    same = ms_deform_attn(value, shapes, locations, weights)
    torch.testing.assert_close(same, operator(value, pixels, weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_dtypes(dtype, compare, level_oracle):
    shapes = ((4, 5), (2, 3))
    inputs = make(n=2, queries=17, width=19, shapes=shapes, dtype=dtype)
    # what the operator sees are rounded locations; those that rounding moved onto a pixel line are moved off it
    near = (inputs[1].double() * torch.tensor(shapes).flip(-1)[:, None] - 0.5).frac().abs()
    inputs[1] = torch.where((near < 0.02) | (near > 0.98), inputs[1] + 0.03, inputs[1])
    oracle, operator = partial(call, level_oracle, shapes), partial(call, ms_deform_attn, shapes, backend="cpp")
    compare(oracle, operator, inputs, TOLERANCE[dtype])


@pytest.mark.parametrize("n,heads", [(2, 3), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_thread_counts_give_the_same_bits(n, heads, dtype, monkeypatch):
    monkeypatch.setattr(library, "WORK_PER_THREAD", 1)
    shapes = ((9, 7), (4, 5))
    inputs = make(n=n, queries=61, heads=heads, width=8, shapes=shapes, dtype=dtype)
    upstream = torch.randn(n, 61, heads * 8).to(dtype)

    def output_and_gradients():
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        y = call(ms_deform_attn, shapes, *leaves, backend="cpp")
        return y.detach(), *torch.autograd.grad(y, leaves, upstream)

    assert_same_bits(output_and_gradients)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1e38])
def test_bad_locations_sample_nothing(bad):
    inputs = make(dtype=torch.float32)
    inputs[1][0, 2] = bad
    leaves = [tensor.requires_grad_() for tensor in inputs]
    y = call(ms_deform_attn, ((4, 5), (2, 3)), *leaves, backend="cpp")
    y.sum().backward()
    assert torch.equal(y[0, 2], torch.zeros_like(y[0, 2]))
    assert all(bool(tensor.grad.isfinite().all()) for tensor in leaves)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "queries"), [(0, 5), (2, 0)])
def test_nothing_to_do(n, queries, backend):
    value, locations, weights = (t.requires_grad_() for t in make(n=n, queries=queries, dtype=torch.float32))
    y = call(ms_deform_attn, ((4, 5), (2, 3)), value, locations, weights, backend=backend)
    y.sum().backward()
    assert y.shape == (n, queries, 8)
    assert value.grad is not None and not bool(value.grad.any())


def test_shapes_as_a_tensor():
    inputs = make(dtype=torch.float32)
    shapes = ((4, 5), (2, 3))
    same = call(ms_deform_attn, shapes, *inputs)
    assert torch.equal(call(ms_deform_attn, torch.tensor(shapes), *inputs), same)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": torch.rand(1, 25, 2, 4)}, r"value must have shape \(1, 26, 2, 4\).*given \(1, 25, 2, 4\)"),
        ({"value": torch.rand(26, 2, 4)}, "value must have 4 dimensions"),
        ({"locations": torch.rand(1, 5, 2, 6, 2)}, r"sampling_locations must have shape \(N, Q, M, L, P, 2\)"),
        ({"locations": torch.rand(1, 5, 3, 2, 3, 2)}, r"sampling_locations must have shape \(1, 5, 2, 2, 3, 2\)"),
        ({"weights": torch.rand(1, 5, 2, 3, 2)}, r"attention_weights must have shape \(1, 5, 2, 2, 3\)"),
        ({"shapes": []}, "spatial_shapes must hold"),
        ({"shapes": [(4, 5), (0, 3)]}, "spatial_shapes must hold"),
    ],
)
def test_wrong_shapes(change, message):
    value, locations, weights = make(dtype=torch.float32)
    given = {"value": value, "shapes": ((4, 5), (2, 3)), "locations": locations, "weights": weights} | change
    with pytest.raises(ValueError, match=message):
        ms_deform_attn(*given.values())


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("softmax", [False, True])
def test_gradcheck(backend, softmax):
    shapes = ((2, 3), (1, 2))
    leaves = [t.requires_grad_() for t in make(queries=2, heads=1, width=2, points=2, shapes=shapes)]
    assert torch.autograd.gradcheck(partial(call, ms_deform_attn, shapes, softmax=softmax, backend=backend), leaves)
