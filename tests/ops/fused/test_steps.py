from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from internimage.ops.fused import (
    Residual,
    add_residual_,
    add_shortcut_,
    depthwise_norm_gelu,
    gelu_,
    kernel_cpp,
    reference,
)
from internimage.ops.fused.rules import can_fuse
from internimage.ops.runtime import library
from tests.threads import assert_same_bits

needs_kernels = pytest.mark.skipif(library.missing_reason() is not None, reason="no compiled kernels here")
SHAPES = [(1, 5, 3, 7), (2, 6, 9, 24), (1, 14, 14, 256), (1, 2, 1, 1), (1, 3, 4, 130), (0, 4, 4, 16)]
DTYPES = {torch.float32: 5e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.fixture(params=["baseline", "AVX2", "AVX-512"])
def _instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    if library.missing_reason() is None:
        best = library.instruction_set()
        library.limit_instruction_set(request.param)
        yield
        library.limit_instruction_set(best)
    else:
        yield


def vectors(channels: int, count: int, dtype: torch.dtype) -> list[torch.Tensor]:
    return [torch.randn(channels).to(dtype) for _ in range(count)]


@needs_kernels
@pytest.mark.usefixtures("_instruction_set")
@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_over_the_whole_range(dtype: torch.dtype) -> None:
    x = torch.linspace(-12, 12, 20_011).to(dtype)
    expected = F.gelu(x.double())
    torch.testing.assert_close(gelu_(x).double(), expected, atol=DTYPES[dtype], rtol=DTYPES[dtype])


@needs_kernels
@pytest.mark.usefixtures("_instruction_set")
def test_gelu_keeps_what_is_not_finite_and_tiny_values() -> None:
    x = torch.tensor([float("nan"), float("inf"), 0.0, 1e-20, -1e-20, 3e38] * 5)
    y = gelu_(x.clone())
    assert y[::6].isnan().all()
    assert torch.equal(y[1::6], x[1::6])
    torch.testing.assert_close(y[2::6], x[2::6])
    torch.testing.assert_close(y[3::6], x[3::6] / 2, atol=0, rtol=1e-5)
    torch.testing.assert_close(y[5::6], x[5::6])


@needs_kernels
@pytest.mark.usefixtures("_instruction_set", "poisoned_empty")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", ["plain", "gamma", "norm", "gamma norm", "next", "gamma norm next"])
def test_residual_equals_the_reference_in_float64(shape: tuple[int, ...], dtype: torch.dtype, parts: str) -> None:
    channels = shape[-1]
    y, shortcut = (torch.randn(shape).to(dtype) for _ in range(2))
    gamma, *others = vectors(channels, 5, dtype)
    terms = Residual(
        gamma if "gamma" in parts else None,
        *(others[:2] if "norm" in parts else (None, None)),
        *(others[2:] if "next" in parts else (None, None)),
    )
    exact = Residual(*(t.double() if isinstance(t, torch.Tensor) else t for t in terms))  # pyright: ignore[reportArgumentType]  # in its order
    has_next = terms.next_weight is not None
    expected_y, expected = y.double(), torch.empty_like(y, dtype=torch.float64) if has_next else None
    reference.add_shortcut_(expected_y, shortcut.double(), expected, *exact)
    total, branch = shortcut.clone(), y.clone()
    after, normed = (torch.empty_like(y) if has_next else None for _ in range(2))
    kernel_cpp.add_residual_(total, branch, after, *terms)
    assert torch.equal(branch, y), "the branch is only read"
    kernel_cpp.add_shortcut_(y, shortcut, normed, *terms)
    tolerance = 3 * DTYPES[dtype]
    torch.testing.assert_close(y.double(), expected_y, atol=tolerance, rtol=tolerance)
    assert torch.equal(total, y)
    if normed is not None and after is not None and expected is not None:
        assert torch.equal(after, normed) or channels == 1
        if channels > 1:  # the norm of a single channel is 0 / 0 up to rounding
            torch.testing.assert_close(normed.double(), expected, atol=tolerance, rtol=tolerance)


@needs_kernels
@pytest.mark.usefixtures("_instruction_set", "poisoned_empty")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_depthwise_equals_the_separate_operators_in_float64(
    shape: tuple[int, ...], dtype: torch.dtype, size: int
) -> None:
    channels = shape[-1]
    x = torch.randn(shape).to(dtype)
    weight = torch.randn(channels, 1, size, size).to(dtype)
    bias, norm_weight, norm_bias = vectors(channels, 3, dtype)
    got = kernel_cpp.depthwise_norm_gelu(x, weight, bias, norm_weight, norm_bias, 1e-6)
    wide = [t.double() for t in (x, weight, bias, norm_weight, norm_bias)]
    expected = reference.depthwise_norm_gelu(*wide, 1e-6)
    if channels > 1:
        torch.testing.assert_close(got.double(), expected, atol=4 * DTYPES[dtype], rtol=4 * DTYPES[dtype])


@needs_kernels
def test_thread_count_changes_no_bit() -> None:
    x, conv, norm = torch.randn(2, 20, 23, 40), nn.Conv2d(40, 40, 3, padding=1, groups=40), nn.LayerNorm(40)
    with torch.no_grad():
        assert_same_bits(
            lambda: (depthwise_norm_gelu(x, conv, norm), add_shortcut_(x.clone(), x, Residual.of(next_norm=norm))),
            (torch.get_num_threads(), 1, 2, 3),
        )


def test_float64_takes_the_reference() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(gelu_(x.clone()), F.gelu(x))
    y = x.clone()
    assert add_shortcut_(y, x, Residual()) is None
    torch.testing.assert_close(y, 2 * x)
    total, norm, normed = x.clone(), nn.LayerNorm(4, eps=1e-6).double().requires_grad_(False), torch.empty_like(x)
    add_residual_(total, x, Residual.of(next_norm=norm), normed)
    torch.testing.assert_close(total, 2 * x)
    torch.testing.assert_close(normed, norm(2 * x))


def test_can_fuse_only_where_nothing_is_lost() -> None:
    x = torch.randn(1, 2, 2, 4)
    assert not can_fuse(x), "gradients are on"
    with torch.no_grad():
        assert can_fuse(x) == (library.missing_reason() is None)
        assert not can_fuse(x, backend="reference")
        assert not can_fuse(x.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert not can_fuse(x)


def test_bad_input_is_refused() -> None:
    x = torch.randn(1, 4, 4, 8)
    with pytest.raises(ValueError, match="contiguous"):
        gelu_(x.transpose(1, 3))
    with pytest.raises(ValueError, match="shortcut must have shape"):
        add_shortcut_(x, x[:, :2], Residual())
    with pytest.raises(ValueError, match="y must have shape"):
        add_residual_(x, x[:, :2], Residual())
    with pytest.raises(ValueError, match="together"):
        add_residual_(x, x.clone(), Residual.of(next_norm=nn.LayerNorm(8)))
    with pytest.raises(ValueError, match="same epsilon"):
        Residual.of(norm=nn.LayerNorm(8), next_norm=nn.LayerNorm(8, eps=1e-6))
    with pytest.raises(ValueError, match="depth-wise"), torch.no_grad():
        depthwise_norm_gelu(x, nn.Conv2d(8, 8, 3, padding=1), nn.LayerNorm(8))


@needs_kernels
def test_registration_passes_opcheck() -> None:
    x, shortcut = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8)
    w, b = torch.randn(8), torch.randn(8)
    ops = torch.ops.internimage
    torch.library.opcheck(ops.gelu_, (x.clone(),))
    torch.library.opcheck(ops.add_shortcut_, (x.clone(), shortcut, None, *Residual(w, w, b)))
    normed = torch.empty_like(x)
    torch.library.opcheck(ops.add_shortcut_, (x.clone(), shortcut, normed, *Residual(next_weight=w, next_bias=b)))
    torch.library.opcheck(ops.add_residual_, (x.clone(), shortcut, normed, *Residual(w, w, b, w, b)))
    torch.library.opcheck(ops.add_residual_, (x.clone(), shortcut, None, *Residual()))
    torch.library.opcheck(ops.depthwise_norm_gelu, (x, torch.randn(8, 1, 3, 3), b, w, b, 1e-6))
