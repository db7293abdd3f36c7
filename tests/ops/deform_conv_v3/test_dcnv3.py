"""dcnv3: every backend against an independent float64 oracle, forward and every gradient."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from internimage.errors import BackendUnavailable
from internimage.ops import dcnv3
from internimage.ops.deform_conv_v3 import kernel_cpp
from internimage.ops.runtime import library
from internimage.ops.sampling import PointTensors, Window, check_sides
from tests.threads import assert_same_bits, torch_threads

TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
DTYPES = list(TOLERANCE)
BACKENDS = ["cpp", "reference"]


def make(
    n=1, h=6, w=5, groups=2, width=4, dtype=torch.float64, spread=1.5, **geometry
) -> tuple[list[Tensor], dict, dict]:
    """Inputs, the public function's settings, and the oracle's settings."""
    settings = {"kernel_size": 3, "stride": 1, "padding": None, "dilation": 1} | geometry
    pairs = {k: (v, v) if isinstance(v, int) else v for k, v in settings.items() if k in _PAIRS}
    kernel, dilation = pairs["kernel_size"], pairs["dilation"]
    if pairs["padding"] is None:
        pairs["padding"] = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    out = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip((h, w), kernel, pairs["stride"], pairs["padding"], dilation, strict=True)
    ]
    points = kernel[0] * kernel[1] - settings.get("remove_center", False)
    x = torch.randn(n, h, w, groups * width, dtype=torch.float64)
    # away from pixel lines, where half precision would put a point on the other side
    offset = spread * torch.randn(n, *out, groups * points * 2, dtype=torch.float64)
    offset = offset.floor() + 0.1 + 0.8 * (offset - offset.floor())
    mask = torch.randn(n, *out, groups * points, dtype=torch.float64)
    inputs = [tensor.to(dtype) for tensor in (x, offset, mask)]
    return inputs, {"groups": groups, **settings}, {"groups": groups, **settings, **pairs}


_PAIRS = ("kernel_size", "stride", "padding", "dilation")


def unpack(oracle, x: Tensor, offset: Tensor, mask: Tensor, **settings) -> Tensor:
    by_group = offset.unflatten(-1, (settings["groups"], -1, 2)), mask.unflatten(-1, (settings["groups"], -1))
    return oracle(x, *by_group, **settings)


SHAPES = [
    {"n": 2, "h": 7, "w": 9, "width": 16},
    {"n": 3, "h": 1, "w": 1, "groups": 3},
    {"h": 1, "w": 11, "groups": 1},
    {"h": 12, "w": 1, "groups": 5},
    {"h": 4, "w": 40, "groups": 1, "width": 32, "stride": 3, "padding": 0},
    {"h": 8, "w": 6, "stride": (1, 2), "padding": (2, 0), "kernel_size": (3, 5), "width": 5},
    {"h": 9, "w": 8, "kernel_size": (4, 2), "dilation": (1, 3)},
    {"h": 9, "w": 9, "kernel_size": 7, "groups": 1, "width": 3},
    {"h": 5, "w": 5, "kernel_size": 1},
    {"h": 8, "w": 7, "kernel_size": 5, "remove_center": True, "offset_scale": 0.5},
    {"h": 8, "w": 7, "kernel_size": (3, 1), "padding": (1, 0), "remove_center": True, "offset_scale": 2.0},
    {"h": 10, "w": 11, "dilation": 2, "padding": 2, "offset_scale": 1.5, "softmax": True},
    {"h": 7, "w": 7, "n": 2, "groups": 3, "softmax": True, "spread": 9.0},
    {"h": 3, "w": 70, "groups": 1, "width": 2},
    {"h": 3, "w": 3, "groups": 130, "width": 1, "kernel_size": 5},
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape, backend, compare, window_oracle, poisoned_empty):
    inputs, settings, oracle_settings = make(**shape)
    compare(
        partial(unpack, window_oracle, **oracle_settings), partial(dcnv3, **settings, backend=backend), inputs, 1e-11
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("softmax", [False, True])
def test_dtypes(dtype, softmax, compare, window_oracle):
    inputs, settings, oracle_settings = make(n=2, h=6, w=7, groups=3, width=17, dtype=dtype, softmax=softmax)
    compare(
        partial(unpack, window_oracle, **oracle_settings),
        partial(dcnv3, **settings, backend="cpp"),
        inputs,
        TOLERANCE[dtype],
    )


@pytest.mark.parametrize("width", [*range(1, 21), 24, 31, 32, 33, 48, 64, 65, 96, 127, 128])
def test_group_widths(width, compare, window_oracle):
    dtype = (torch.float32, torch.bfloat16, torch.float16)[width % 3]
    inputs, settings, oracle_settings = make(h=3, w=4, groups=2, width=width, dtype=dtype)
    oracle, operator = partial(unpack, window_oracle, **oracle_settings), partial(dcnv3, **settings, backend="cpp")
    compare(oracle, operator, inputs, TOLERANCE[dtype])


@pytest.mark.parametrize("instruction_set", ["baseline", "AVX2", "AVX-512"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_instruction_sets(instruction_set, dtype, compare, window_oracle):
    best = library.instruction_set()
    try:
        library.limit_instruction_set(instruction_set)
        inputs, settings, oracle_settings = make(h=5, w=6, groups=2, width=23, dtype=dtype, softmax=True)
        oracle, operator = partial(unpack, window_oracle, **oracle_settings), partial(dcnv3, **settings, backend="cpp")
        compare(oracle, operator, inputs, TOLERANCE[dtype])
    finally:
        library.limit_instruction_set(best)


@pytest.mark.parametrize("instruction_set", library.INSTRUCTION_SETS)
@pytest.mark.parametrize("kernel_size", [3, 4, 5])
@pytest.mark.parametrize("logits", ["small", "shifted", "far apart", "some minus infinity"])
def test_softmax_of_any_logits(logits, kernel_size, instruction_set):
    inputs, settings, _ = make(n=2, h=9, w=11, groups=3, dtype=torch.float32, kernel_size=kernel_size, softmax=True)
    mask = inputs[2]
    if logits == "shifted":
        mask[0, 2:4] += 500.0
        mask[1] -= 500.0
    elif logits == "far apart":
        mask *= 100.0
    elif logits == "some minus infinity":
        mask[torch.rand(mask.shape) < 0.3] = -math.inf
        mask[..., :: kernel_size**2] = 0.5  # none but them would be 0 / 0
    want = dcnv3(*(tensor.double() for tensor in inputs), **settings, backend="reference")
    best = library.instruction_set()
    try:
        library.limit_instruction_set(instruction_set)
        got = dcnv3(*inputs, **settings, backend="cpp")
    finally:
        library.limit_instruction_set(best)
    torch.testing.assert_close(got.double(), want, rtol=TOLERANCE[torch.float32], atol=TOLERANCE[torch.float32])


def test_bfloat16_adds_little_to_rounding():
    inputs, settings, _ = make(n=2, h=28, w=28, groups=4, width=16, dtype=torch.bfloat16, softmax=True)
    want = dcnv3(*(tensor.double() for tensor in inputs), **settings, backend="reference")
    error = (dcnv3(*inputs, **settings, backend="cpp").double() - want).square().mean().sqrt()
    rounding = (want.bfloat16().double() - want).square().mean().sqrt()
    assert error < 1.5 * rounding  # corner weights may be bfloat16, sums are float32


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_batch(backend):
    inputs = [torch.zeros(0, 4, 4, c, requires_grad=True) for c in (8, 36, 18)]
    y = dcnv3(*inputs, groups=2, backend=backend)
    y.sum().backward()
    assert y.shape == (0, 4, 4, 8)
    assert all(tensor.grad.shape == tensor.shape for tensor in inputs)


def test_point_order_is_width_outer():
    x = torch.zeros(1, 3, 3, 1)
    x[0, 2, 1, 0] = 1.0  # one pixel below the center
    mask = torch.arange(9.0).view(1, 1, 1, 9).expand(1, 3, 3, 9)
    y = dcnv3(x, torch.zeros(1, 3, 3, 18), mask, groups=1)
    assert y[0, 1, 1, 0] == 5.0  # column 1, row 2 of the window


def test_offset_scale_spreads_the_grid():
    x = torch.randn(1, 9, 9, 4)
    zeros, even = torch.zeros(1, 9, 9, 18), torch.ones(1, 9, 9, 9)
    spread = dcnv3(x, zeros, even, groups=1, offset_scale=2.0)
    dilated = dcnv3(x, zeros, even, groups=1, dilation=2)
    torch.testing.assert_close(spread, dilated)


def test_slope_on_pixel_lines_is_the_right_hand_one(compare, window_oracle):
    inputs, settings, oracle_settings = make(h=4, w=5)
    inputs[1].zero_()
    compare(partial(unpack, window_oracle, **oracle_settings), partial(dcnv3, **settings, backend="cpp"), inputs, 1e-12)


def test_border_cells(compare, window_oracle):
    inputs, settings, oracle_settings = make(h=2, w=3, kernel_size=1)
    edges = torch.tensor([-1.0, -0.999, -0.5, -1e-9, 0.0, 0.5, 1.0, 1.5, 1.999999, 2.0, 2.5, 2.999, 3.0])
    for edge in edges:
        # a position, not a shift: take the pixel's own place away
        columns, rows = torch.arange(3.0)[None, None, :, None], torch.arange(2.0)[None, :, None, None]
        own = torch.stack((columns.expand(1, 2, 3, 2), rows.expand(1, 2, 3, 2)), dim=-1).flatten(3)
        inputs[1] = edge.double() - own.double()
        compare(
            partial(unpack, window_oracle, **oracle_settings), partial(dcnv3, **settings, backend="cpp"), inputs, 1e-9
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30, -1e30, 2.0**31, -(2.0**31)])
def test_offsets_from_hell_sample_nothing(bad, dtype):
    inputs, settings, _ = make(n=1, h=5, w=6, dtype=dtype)
    bad = max(min(bad, torch.finfo(dtype).max), torch.finfo(dtype).min) if math.isfinite(bad) else bad
    inputs[1][0, 2, 3, :] = bad
    inputs[1][0, 4, 0, ::2] = bad
    x, offset, mask = [tensor.requires_grad_() for tensor in inputs]
    y = dcnv3(x, offset, mask, **settings, backend="cpp")
    assert torch.equal(y[0, 2, 3], torch.zeros_like(y[0, 2, 3]))
    assert torch.equal(y[0, 4, 0], torch.zeros_like(y[0, 4, 0]))
    y.sum().backward()
    assert all(bool(tensor.grad.isfinite().all()) for tensor in (x, offset, mask))


def test_pixels_that_are_not_sampled_are_not_read():
    inputs, settings, _ = make(n=1, h=6, w=6, groups=1, dtype=torch.float32)
    inputs[1].fill_(-30.0)
    inputs[1][0, 0, 0] = 0.0  # the window of pixel (0, 0) only
    inputs[0][0, 3:] = math.nan
    y = dcnv3(*inputs, **settings, backend="cpp")
    assert bool(y.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n,groups", [(2, 3), (1, 1)])
def test_thread_counts_give_the_same_bits(n, groups, dtype, monkeypatch):
    monkeypatch.setattr(library, "WORK_PER_THREAD", 1)
    inputs, settings, _ = make(n=n, h=13, w=9, groups=groups, width=8, dtype=dtype, spread=4.0)
    upstream = torch.randn(inputs[0].shape).to(dtype)

    def output_and_gradients():
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        y = dcnv3(*leaves, **settings, backend="cpp")
        return y.detach(), *torch.autograd.grad(y, leaves, upstream)

    assert_same_bits(output_and_gradients)


def test_plain_threads_serve_without_openmp(monkeypatch):
    inputs, settings, _ = make(n=2, h=13, w=9, dtype=torch.float32)
    want = dcnv3(*inputs, **settings, backend="cpp")
    monkeypatch.setattr(library, "start_team", lambda: 0)
    monkeypatch.setattr(library, "WORK_PER_THREAD", 1)
    with torch_threads(3):
        assert torch.equal(dcnv3(*inputs, **settings, backend="cpp"), want)


def test_slices_of_a_fused_projection_are_read_in_place(monkeypatch):
    joined = torch.randn(2, 5, 6, 8 + 36 + 18)
    x, offset, mask = joined.split((8, 36, 18), dim=-1)
    want = dcnv3(x.contiguous(), offset.contiguous(), mask.contiguous(), groups=2, backend="cpp")

    def refuse(self: Tensor, *args: object, **kwargs: object) -> Tensor:
        raise AssertionError("copied")

    monkeypatch.setattr(Tensor, "contiguous", refuse)
    assert torch.equal(dcnv3(x, offset, mask, groups=2, backend="cpp"), want)


def test_other_layouts_give_the_same_result():
    inputs, settings, _ = make(n=2, h=5, w=6)
    want = dcnv3(*inputs, **settings, backend="cpp")
    turned = [tensor.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for tensor in inputs]
    assert torch.equal(dcnv3(*turned, **settings, backend="cpp"), want)
    wide = [torch.cat((tensor, tensor), dim=2)[:, :, : tensor.shape[2]] for tensor in inputs]
    assert torch.equal(dcnv3(*wide, **settings, backend="cpp"), want)
    same = [tensor[:1].expand(3, -1, -1, -1) for tensor in inputs]
    assert torch.equal(dcnv3(*same, **settings, backend="cpp")[2], want[0])


def test_broadcast_upstream_gradient():
    inputs, settings, _ = make(n=2, h=5, w=6)
    leaves = [tensor.requires_grad_() for tensor in inputs]
    dcnv3(*leaves, **settings, backend="cpp").sum().backward()
    got = [tensor.grad.clone() for tensor in leaves]
    want = torch.autograd.grad(dcnv3(*leaves, **settings, backend="reference").sum(), leaves)
    for a, b in zip(want, got, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fractions_keep_their_precision_far_from_the_origin(backend, compare, window_oracle):
    inputs, settings, oracle_settings = make(h=2, w=900, groups=1, width=2, dtype=torch.float32)
    oracle, operator = partial(unpack, window_oracle, **oracle_settings), partial(dcnv3, **settings, backend=backend)
    compare(oracle, operator, inputs, 1.5e-6 if backend == "cpp" else 1e-3)


def test_no_buffer_beyond_outputs(monkeypatch):
    inputs, settings, _ = make(n=2, h=8, w=8, width=16, dtype=torch.float32)
    taken: list[int] = []

    def counted(original):
        def count(*args, **kwargs):
            tensor = original(*args, **kwargs)
            taken.append(tensor.numel())
            return tensor

        return count

    for owner, name in ((torch, "empty"), (torch, "zeros"), (Tensor, "new_empty"), (Tensor, "contiguous")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    y = dcnv3(*inputs, **settings, backend="cpp")
    assert sum(taken) == y.numel()


def test_a_default_device_does_not_move_the_output():
    inputs, settings, _ = make(n=1, h=4, w=4, width=8, dtype=torch.float32)
    want = dcnv3(*inputs, **settings, backend="cpp")
    with torch.device("meta"):
        assert torch.equal(dcnv3(*inputs, **settings, backend="cpp"), want)


def test_a_row_of_too_many_elements_is_refused():
    with pytest.raises(ValueError, match=r"rows of fewer than 2\*\*31"):
        check_sides(1, 2**20, row=2**31)


def test_a_map_of_too_many_pixels_is_refused():
    x = torch.empty(1, 1, 1, 1).expand(1, 2**15, 2**14, 1)
    with pytest.raises(ValueError, match=r"2\*\*29 pixels"):
        points = PointTensors(torch.empty(1, 1, 1, 2), 2, torch.empty(1, 1, 1, 1), 1)
        kernel_cpp.run_forward(x, points, Window((1, 1), (1, 1), (0, 0), (1, 1), 1, 1.0, False, False))


def small() -> tuple[Tensor, Tensor, Tensor]:
    return torch.rand(1, 4, 5, 8), torch.rand(1, 4, 5, 36), torch.rand(1, 4, 5, 18)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.rand(4, 5, 8)}, r"x must have 4 dimensions"),
        ({"x": torch.rand(1, 4, 5, 7)}, r"divide into groups=2, given 7"),
        ({"offset": torch.rand(1, 4, 5, 18)}, r"offset must have shape \(1, 4, 5, 36\).*given \(1, 4, 5, 18\)"),
        ({"mask": torch.rand(1, 5, 4, 18)}, r"mask must have shape \(1, 4, 5, 18\).*given \(1, 5, 4, 18\)"),
        ({"offset": torch.rand(2, 4, 5, 36)}, r"offset must have shape"),
        ({"groups": 0}, r"groups must be at least 1"),
        ({"kernel_size": 0}, r"kernel_size must be"),
        ({"kernel_size": (3, 3, 3)}, r"kernel_size must be"),
        ({"stride": -1}, r"stride must be"),
        ({"padding": (-1, 0)}, r"padding must be"),
        ({"dilation": 1.5}, r"dilation must be"),
        ({"kernel_size": 4, "remove_center": True}, r"remove_center needs odd"),
        ({"kernel_size": 1, "remove_center": True}, r"remove_center needs odd"),
        ({"kernel_size": 9, "padding": 0}, r"does not fit"),
        ({"backend": "cuda"}, r"backend must be one of"),
    ],
)
def test_wrong_arguments(change, message):
    x, offset, mask = small()
    arguments = {"x": x, "offset": offset, "mask": mask, "groups": 2} | change
    tensors = [arguments.pop(name) for name in ("x", "offset", "mask")]
    with pytest.raises(ValueError, match=message):
        dcnv3(*tensors, **arguments)


def test_wrong_dtypes():
    x, offset, mask = small()
    with pytest.raises(TypeError, match=r"offset must have the dtype of x"):
        dcnv3(x, offset.double(), mask, groups=2)
    with pytest.raises(TypeError, match="floating-point"):
        dcnv3(x.int(), offset.int(), mask.int(), groups=2)


def test_backend_that_cannot_run_says_why():
    tensors = [tensor.to("meta") for tensor in small()]
    with pytest.raises(BackendUnavailable, match="run on cpu tensors, given meta"):
        kernel = torch.ops.internimage.dcnv3
        kernel.default.redispatch(
            torch._C.DispatchKeySet(torch._C.DispatchKey.CPU),
            *tensors,
            *([3, 3], [1, 1], [1, 1], [1, 1], 2, 1.0, False, False, "cpp"),
        )


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("softmax", [False, True])
def test_gradcheck(backend, softmax):
    inputs, settings, _ = make(n=1, h=2, w=3, groups=2, width=1, kernel_size=2, padding=1, softmax=softmax)
    leaves = [tensor.requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(partial(dcnv3, **settings, backend=backend), leaves)
