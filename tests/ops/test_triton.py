"""The Triton kernels against the float64 reference, forward and every gradient.

They run on a GPU (`-m gpu`) or, at small shapes, in Triton's interpreter; the interpreter is chosen before Python
starts, so `test_triton_interpreter.py` runs this file in a process of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from internimage.ops import dcnv3, dcnv4, ms_deform_attn
from internimage.ops.deform_conv_v4 import packed_channels
from internimage.ops.runtime.triton import support as triton_support

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.skipif(
        not (DEVICE == "cuda" or triton_support.interpreting()),
        reason="no GPU; test_triton_interpreter.py runs this in a process of its own",
    ),
    *([pytest.mark.gpu] if DEVICE == "cuda" else []),
]
only_gpu = pytest.mark.skipif(DEVICE != "cuda", reason="no GPU; large or specific to one")
TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def off_lines(shape: tuple[int, ...], spread: float = 1.5) -> Tensor:
    """Random numbers whose fraction lies in 0.1 .. 0.9, so that no rounding moves a point over a pixel line."""
    noise = spread * torch.randn(shape, dtype=torch.float64)
    return noise.floor() + 0.1 + 0.8 * (noise - noise.floor())


def window_inputs(n=1, h=5, w=4, groups=2, width=4, points=9, out=None, spread=1.5) -> list[Tensor]:
    out = out or (h, w)
    x = torch.randn(n, h, w, groups * width, dtype=torch.float64)
    mask = torch.randn(n, *out, groups * points, dtype=torch.float64)
    return [x, off_lines((n, *out, groups * points * 2), spread), mask]


def packed_inputs(n=1, h=5, w=4, groups=2, width=4, points=9, out=None) -> list[Tensor]:
    packed = off_lines((n, *(out or (h, w)), packed_channels(groups, points)))
    return [torch.randn(n, h, w, groups * width, dtype=torch.float64), packed]


def level_inputs(shapes, n=1, queries=5, heads=2, width=4, points=2) -> list[Tensor]:
    sizes = torch.tensor(shapes, dtype=torch.float64).flip(-1)[:, None]
    value = torch.randn(n, sum(h * w for h, w in shapes), heads, width, dtype=torch.float64)
    pixels = (1.5 * torch.rand(n, queries, heads, len(shapes), points, 2, dtype=torch.float64) - 0.25) * sizes
    pixels = pixels.floor() + 0.6 + 0.8 * (pixels - pixels.floor())
    return [value, pixels / sizes, torch.randn(n, queries, heads, len(shapes), points, dtype=torch.float64)]


def check(operator: Callable[..., Tensor], inputs: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Compare backend "triton" with "reference" in float64 on the same (rounded) inputs; returns what Triton gave."""
    exact = [tensor.to(dtype).double().requires_grad_() for tensor in inputs]
    given = [tensor.to(DEVICE, dtype).requires_grad_() for tensor in inputs]
    want, got = operator(*exact, backend="reference"), operator(*given, backend="triton")
    upstream = torch.randn(want.shape).to(dtype)
    wanted = [want, *torch.autograd.grad(want, exact, upstream.double())]
    gotten = [got, *torch.autograd.grad(got, given, upstream.to(DEVICE))]
    for index, (a, b) in enumerate(zip(wanted, gotten, strict=True)):
        assert b.dtype == dtype
        scale = max(1.0, float(a.detach().abs().max()))
        assert float((a - b.cpu().double()).detach().abs().max()) <= TOLERANCE[dtype] * scale, index
    return [tensor.detach() for tensor in gotten]


WINDOWS = [
    ({"n": 2, "h": 5, "w": 7, "groups": 3, "width": 6}, {}),
    ({"h": 1, "w": 1, "groups": 1, "width": 1}, {"softmax": True}),
    ({"h": 6, "w": 5, "out": (3, 3), "width": 5}, {"stride": 2, "softmax": True}),
    ({"points": 10, "h": 4, "w": 6}, {"kernel_size": (2, 5), "padding": (0, 2), "out": (3, 6), "softmax": True}),
    ({"points": 8, "width": 3, "groups": 5}, {"remove_center": True, "offset_scale": 2.0}),
    ({"points": 1, "width": 33, "groups": 1}, {"kernel_size": 1}),
    ({"points": 25, "h": 3, "w": 3, "width": 7}, {"kernel_size": 5, "dilation": 2, "offset_scale": 0.5}),
    ({"h": 3, "w": 3, "groups": 80, "width": 2}, {}),
]


@pytest.mark.parametrize(("shape", "settings"), WINDOWS, ids=str)
def test_dcnv3(shape, settings, poisoned_empty):
    settings = dict(settings)
    shape = shape | ({"out": settings.pop("out")} if "out" in settings else {})
    check(partial(dcnv3, groups=shape.get("groups", 2), **settings), window_inputs(**shape), torch.float32)


@pytest.mark.parametrize(("shape", "settings"), WINDOWS[2:6], ids=str)
def test_dcnv4(shape, settings, poisoned_empty):
    settings = dict(settings)
    shape = shape | ({"out": settings.pop("out")} if "out" in settings else {})
    check(partial(dcnv4, groups=shape.get("groups", 2), **settings), packed_inputs(**shape), torch.float32)


LEVELS = [
    ({"n": 2, "queries": 7, "heads": 3, "width": 8}, ((4, 5), (2, 3), (1, 1))),
    ({"queries": 1, "heads": 1, "width": 1, "points": 1}, ((1, 1),)),
    ({"queries": 9, "heads": 8, "width": 5, "points": 3}, ((6, 4), (3, 7))),
]


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize(("shape", "levels"), LEVELS, ids=str)
def test_ms_deform_attn(shape, levels, softmax, poisoned_empty):
    operator = lambda value, *rest, backend: ms_deform_attn(value, levels, *rest, softmax=softmax, backend=backend)  # noqa: E731
    check(operator, level_inputs(levels, **shape), torch.float32)


def test_ms_deform_attn_in_pixels():
    levels = ((4, 5), (2, 3))
    value, locations, weights = level_inputs(levels)
    operator = lambda value, *rest, backend: ms_deform_attn(value, levels, *rest, normalized=False, backend=backend)  # noqa: E731
    check(operator, [value, locations * torch.tensor(levels).flip(-1)[:, None], weights], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types(dtype):
    check(partial(dcnv3, groups=2, softmax=True), window_inputs(width=16), dtype)
    check(partial(dcnv4, groups=2), packed_inputs(width=16), dtype)


def test_slices_of_a_fused_projection_are_read_in_place():
    joined = torch.randn(2, 5, 4, 8 + 36 + 18, device=DEVICE)
    parts = joined.split((8, 36, 18), dim=-1)
    want = dcnv3(*(part.contiguous() for part in parts), groups=2, backend="triton")
    assert torch.equal(dcnv3(*parts, groups=2, backend="triton"), want)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1e30])
def test_bad_offsets_sample_nothing(bad):
    inputs = [tensor.to(DEVICE, torch.float32) for tensor in window_inputs()]
    inputs[1][0, 2, 1] = bad
    leaves = [tensor.requires_grad_() for tensor in inputs]
    y = dcnv3(*leaves, groups=2, backend="triton")
    y.sum().backward()
    assert not bool(y[0, 2, 1].any())
    assert all(bool(tensor.grad.isfinite().all()) for tensor in leaves)


def test_empty_batch():
    leaves = [torch.zeros(0, 4, 4, c, device=DEVICE, requires_grad=True) for c in (8, 36, 18)]
    y = dcnv3(*leaves, groups=2, backend="triton")
    y.sum().backward()
    assert y.shape == (0, 4, 4, 8)


@pytest.mark.parametrize("softmax", [False, True])
def test_deterministic_backward(softmax):
    inputs = window_inputs(n=2, h=6, w=6, spread=3.0)
    torch.use_deterministic_algorithms(True)
    try:
        operator = partial(dcnv3, groups=2, softmax=softmax)
        exact = check(operator, inputs, torch.float32)
        given = [tensor.to(DEVICE, torch.float32).requires_grad_() for tensor in inputs]
        upstream = torch.ones_like(exact[0])
        first = torch.autograd.grad(operator(*given, backend="triton"), given, upstream)
        second = torch.autograd.grad(operator(*given, backend="triton"), given, upstream)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # of the interpreter: NaN to an integer
def test_deterministic_backward_keeps_nan():
    leaves = [tensor.to(DEVICE, torch.float32).requires_grad_() for tensor in window_inputs()]
    upstream = torch.ones_like(leaves[0])
    upstream[0, 0, 0, 0] = math.nan
    torch.use_deterministic_algorithms(True)
    try:
        grad = torch.autograd.grad(dcnv3(*leaves, groups=2, backend="triton"), leaves, upstream)[0]
    finally:
        torch.use_deterministic_algorithms(False)
    assert bool(grad.isnan().any())


STAGES = [
    {"n": 3, "h": 56, "w": 55, "groups": 4, "width": 16},
    {"h": 14, "w": 14, "groups": 32, "width": 32},
    {"n": 2, "h": 7, "w": 7, "groups": 128, "width": 32},
]


@only_gpu
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("shape", STAGES, ids=str)
def test_stage_shapes(shape, dtype):
    check(partial(dcnv3, groups=shape["groups"], softmax=True), window_inputs(**shape), dtype)
    check(partial(dcnv4, groups=shape["groups"]), packed_inputs(**shape), dtype)


@only_gpu
def test_encoder_shape():
    levels = ((100, 134), (50, 67), (25, 34), (13, 17))
    operator = lambda value, *rest, backend: ms_deform_attn(value, levels, *rest, softmax=True, backend=backend)  # noqa: E731
    check(operator, level_inputs(levels, queries=2000, heads=8, width=32, points=4), torch.float32)


@only_gpu
def test_more_than_two_billion_elements():
    n, side, groups, width = 9, 1024, 16, 16  # 2.4e9 elements
    x = torch.randn(n, side, side, groups * width, dtype=torch.bfloat16, device=DEVICE)
    offset = torch.zeros(1, 1, 1, groups * 2, dtype=x.dtype, device=DEVICE).expand(n, side, side, -1).contiguous()
    mask = torch.ones(n, side, side, groups, dtype=x.dtype, device=DEVICE)
    y = dcnv3(x, offset, mask, groups=groups, kernel_size=1, backend="triton")
    assert torch.equal(y[-1, -1], x[-1, -1])


@only_gpu
def test_other_streams_and_graphs():
    leaves = [tensor.to(DEVICE, torch.bfloat16) for tensor in window_inputs(h=14, w=14, width=16)]
    want = dcnv3(*leaves, groups=2, backend="triton")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        other = dcnv3(*leaves, groups=2, backend="triton")
    stream.synchronize()
    assert torch.equal(other, want)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = dcnv3(*leaves, groups=2, backend="triton")
    leaves[0].zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert not bool(recorded.any())


@only_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_second_device():
    leaves = [tensor.to("cuda:1", torch.float32) for tensor in window_inputs()]
    want = dcnv3(*(tensor.cpu() for tensor in leaves), groups=2)
    torch.testing.assert_close(dcnv3(*leaves, groups=2).cpu(), want)


@pytest.mark.filterwarnings("ignore:.*Profiler clears events")
@pytest.mark.parametrize("name", ["dcnv3", "dcnv4", "ms_deform_attn"])
def test_the_profiler_sees_the_operator(name):
    """Observed, it comes through torch, which hands its settings over as lists."""
    levels = ((4, 5), (2, 3))
    operator, inputs = {
        "dcnv3": (partial(dcnv3, groups=2), window_inputs()),
        "dcnv4": (partial(dcnv4, groups=2), packed_inputs()),
        "ms_deform_attn": (
            lambda v, *rest, backend: ms_deform_attn(v, levels, *rest, backend=backend),
            level_inputs(levels),
        ),
    }[name]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        check(operator, inputs, torch.float32)
    names = {event.key for event in seen.key_averages()}
    assert {f"internimage::{name}", f"internimage::{name}_backward"} <= names
