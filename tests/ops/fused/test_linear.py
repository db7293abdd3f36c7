from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.ops import fused
from internimage.ops.fused import (
    ConvWindow,
    Residual,
    pack,
    packed_conv,
    packed_linear,
    packed_perceptron,
    patch_weight,
    reference,
)
from internimage.ops.runtime import library
from tests.threads import torch_threads

needs_kernels = pytest.mark.skipif(
    fused.missing_reason(torch.ones(1, 2)) is not None,
    reason="no compiled linear layers: they need a processor with AVX-512",
)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}


@pytest.fixture(params=["AVX-512", "AVX-512 BF16"])
def _instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    best = library.instruction_set()
    library.limit_instruction_set(request.param)
    yield
    library.limit_instruction_set(best)


@pytest.fixture(autouse=True)
def _own_product() -> Iterator[None]:
    """Where AMX makes torch's bfloat16 product the one chosen, the compiled one has to be right all the same."""
    if library.missing_reason() is not None:
        yield
        return
    best = library.instruction_set()
    library.limit_instruction_set("AVX-512 BF16")
    yield
    library.limit_instruction_set(best)


def layer(inputs: int, outputs: int, dtype: torch.dtype, *, bias: bool = True) -> tuple[Tensor, Tensor | None]:
    weight = (torch.randn(outputs, inputs) / inputs**0.5).to(dtype)
    return weight, torch.randn(outputs).to(dtype) if bias else None


def exact(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double())


def close(got: Tensor, want: Tensor, factor: float = 1.0) -> None:
    tolerance = factor * TOLERANCE[got.dtype]
    torch.testing.assert_close(got.double(), want, atol=tolerance, rtol=tolerance)


@needs_kernels
@pytest.mark.usefixtures("_instruction_set", "poisoned_empty")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rows", [(1,), (5,), (2, 3, 6), (97,), (0, 4)])
@pytest.mark.parametrize("sizes", [(2, 1), (6, 16), (64, 108), (30, 33), (700, 80), (1024, 50)])
def test_equals_the_product_in_float64(
    dtype: torch.dtype, activation: fused.Activation, rows: tuple[int, ...], sizes: tuple[int, int]
) -> None:
    x, (weight, bias) = torch.randn(*rows, sizes[0]).to(dtype), layer(*sizes, dtype, bias=sizes[1] != 33)
    got = packed_linear(x, pack(weight, bias), activation=activation)
    assert got.is_contiguous()
    close(got, ACTIVATIONS[activation](exact(x, weight, bias)))


@needs_kernels
def test_errors_of_long_sums_stay_small() -> None:
    x, (weight, bias) = torch.randn(64, 4096), layer(4096, 64, torch.float32)
    want = exact(x, weight, bias)
    ours = (packed_linear(x, pack(weight, bias)) - want).abs().max()
    running = torch.zeros(64, 64) if bias is None else bias.expand(64, 64)
    for k in range(4096):
        running = torch.addcmul(running, x[:, k, None], weight[None, :, k])
    assert ours < 0.5 * (running - want).abs().max()


@needs_kernels
@pytest.mark.usefixtures("_instruction_set", "poisoned_empty")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [(1,), (7, 7), (2, 9, 11), (0,)])
@pytest.mark.parametrize("hidden", [None, 40, 256])
@pytest.mark.parametrize("parts", ["plain", "gamma", "norm", "next", "gamma norm next"])
def test_perceptron_equals_the_separate_steps_in_float64(
    dtype: torch.dtype, rows: tuple[int, ...], hidden: int | None, parts: str
) -> None:
    inputs, outputs = 24, 70
    sizes = [(inputs, outputs)] if hidden is None else [(inputs, hidden), (hidden, outputs)]
    layers = [layer(*size, dtype) for size in sizes]
    x, shortcut = torch.randn(*rows, inputs).to(dtype), torch.randn(*rows, outputs).to(dtype)
    vectors = [torch.randn(outputs).to(dtype) for _ in range(5)]
    residual = Residual(
        vectors[0] if "gamma" in parts else None,
        *(vectors[1:3] if "norm" in parts else (None, None)),
        *(vectors[3:] if "next" in parts else (None, None)),
    )
    activation = "none" if hidden is None else "gelu"
    total, normed = packed_perceptron(x, [pack(*one) for one in layers], shortcut, residual, activation=activation)

    y = exact(x, *layers[0])
    if hidden is not None:
        y = exact(F.gelu(y), *layers[1])
    wide = (t.double() if isinstance(t, Tensor) else t for t in residual)
    after = torch.empty_like(y) if "next" in parts else None
    reference.add_shortcut_(y, shortcut.double(), after, *wide)
    close(total, y, 5)
    assert (normed is None) == (after is None)
    if normed is not None and after is not None:
        close(normed, after, 8)


@needs_kernels
@pytest.mark.usefixtures("_instruction_set", "poisoned_empty")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 9, 7, 3), (2, 12, 16, 20), (1, 1, 1, 5), (3, 2, 5, 64), (0, 4, 4, 2)])
@pytest.mark.parametrize(
    "window", [ConvWindow(3, 2, 1), ConvWindow(3, 1, 1), ConvWindow(1, 1, 0), ConvWindow(5, 3, 2), ConvWindow(2, 2, 0)]
)
@pytest.mark.parametrize("parts", ["plain", "norm gelu", "norm next"])
def test_convolution_equals_the_separate_steps_in_float64(
    dtype: torch.dtype, shape: tuple[int, ...], window: ConvWindow, parts: str
) -> None:
    size, stride, padding = window
    x, weight = torch.randn(shape).to(dtype), torch.randn(36, shape[-1], size, size).to(dtype) / (3 * shape[-1])
    bias, *vectors = (torch.randn(36).to(dtype) for _ in range(5))
    activation = "gelu" if "gelu" in parts else "none"
    residual = Residual(
        None,
        *(vectors[:2] if "norm" in parts else (None, None)),
        *(vectors[2:] if "next" in parts else (None, None)),
    )
    if min(side + 2 * padding for side in shape[1:3]) < size:
        got, _ = packed_conv(x, pack(patch_weight(weight), bias), window, residual, activation=activation)
        assert got.numel() == 0
        return
    got, normed = packed_conv(x, pack(patch_weight(weight), bias), window, residual, activation=activation)

    def norm(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(y, (36,), weight.double(), bias.double(), residual.eps)

    y = F.conv2d(x.double().permute(0, 3, 1, 2), weight.double(), bias.double(), stride, padding).permute(0, 2, 3, 1)
    want = ACTIVATIONS[activation](norm(y, *vectors[:2]) if "norm" in parts else y)
    close(got, want, 5)
    assert (normed is None) == ("next" not in parts)
    if normed is not None:
        close(normed, norm(want, *vectors[2:]), 8)


@needs_kernels
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_thread_count_and_place_among_the_rows_change_no_bit(dtype: torch.dtype) -> None:
    first, second = (pack(*layer(*sizes, dtype)) for sizes in ((64, 256), (256, 64)))
    x, shortcut = torch.randn(301, 64).to(dtype), torch.randn(301, 64).to(dtype)
    with torch_threads(1):
        rows = packed_linear(x, first)
        total, _ = packed_perceptron(x, (first, second), shortcut, Residual(), activation="gelu")
        assert torch.equal(packed_linear(x[100:117], first), rows[100:117])
    for threads in (2, 3, 7):
        with torch_threads(threads):
            assert torch.equal(packed_linear(x, first), rows)
            assert torch.equal(packed_linear(x[:1], first), rows[:1])
            assert torch.equal(packed_perceptron(x, (first, second), shortcut, Residual(), activation="gelu")[0], total)


@needs_kernels
def test_what_is_not_finite_stays_in_its_row() -> None:
    x = torch.ones(8, 4)
    x[2, 0], x[5, 1] = float("nan"), float("inf")
    for activation in ACTIVATIONS:
        y = packed_linear(x, pack(torch.ones(20, 4), None), activation=activation)
        assert y[2].isnan().all()
        assert torch.equal(y[5], torch.full((20,), float("inf")))
        assert y[[0, 1, 3, 4, 6, 7]].isfinite().all()


@needs_kernels
def test_rows_that_are_not_contiguous() -> None:
    x, (weight, bias) = torch.randn(6, 5, 8).transpose(0, 1), layer(8, 12, torch.float32)
    close(packed_linear(x, pack(weight, bias)), exact(x, weight, bias))


def test_weights_that_cannot_be_packed_say_why() -> None:
    assert "float64" in str(fused.missing_reason(torch.ones(3, 4).double()))
    assert "meta" in str(fused.missing_reason(torch.ones(3, 4, device="meta")))
    assert "even number" in str(fused.missing_reason(torch.ones(3, 5).bfloat16()))
    with pytest.raises(ValueError, match="cannot pack these weights"):
        pack(torch.ones(0, 4), None)


def test_no_kernel_below_avx512() -> None:
    if library.missing_reason() is not None:
        pytest.skip("no compiled kernels here")
    best = library.instruction_set()
    packed = pack(torch.ones(4, 4), None) if fused.missing_reason(torch.ones(4, 4)) is None else None
    try:
        library.limit_instruction_set("AVX2")
        assert "AVX-512" in str(fused.missing_reason(torch.ones(4, 4)))
        if packed is not None:
            with pytest.raises(RuntimeError, match="no kernel"):
                packed_linear(torch.ones(2, 4), packed)
    finally:
        library.limit_instruction_set(best)


@needs_kernels
def test_bad_input_is_refused() -> None:
    packed, x = pack(torch.ones(6, 4), None), torch.ones(3, 4)
    with pytest.raises(ValueError, match="expected 4 inputs"):
        packed_linear(torch.ones(3, 5), packed)
    with pytest.raises(ValueError, match="float32 on cpu"):
        packed_linear(x.double(), packed)
    with pytest.raises(ValueError, match="activation must be one of"):
        packed_linear(x, packed, activation="tanh")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ValueError, match="shortcut must have shape"):
        packed_perceptron(x, [packed], x, Residual())
    with pytest.raises(ValueError, match="one or two layers"):
        packed_perceptron(x, [], x, Residual())
    with pytest.raises(ValueError, match="single layer"):
        packed_perceptron(x, [packed], torch.ones(3, 6), Residual(), activation="relu")
    with pytest.raises(ValueError, match="expected 4 inputs"):
        packed_perceptron(x, [packed, packed], torch.ones(3, 6), Residual())
    with pytest.raises(ValueError, match="shortcut of"):
        packed_perceptron(x, [packed], torch.ones(3, 6).double(), Residual())
    conv = pack(patch_weight(torch.ones(6, 2, 3, 3)), None)
    with pytest.raises(ValueError, match="expected 18 inputs"):
        packed_conv(torch.ones(1, 4, 4, 3), conv, ConvWindow(3, 2, 1), Residual())
    half = pack(patch_weight(torch.ones(6, 3, 3, 3).bfloat16()), None)
    with pytest.raises(ValueError, match="bfloat16 on cpu"):
        packed_conv(torch.ones(1, 4, 4, 3), half, ConvWindow(3, 2, 1), Residual())
    with pytest.raises(ValueError, match="no gamma"):
        packed_conv(torch.ones(1, 4, 4, 2), conv, ConvWindow(3, 2, 1), Residual(gamma=torch.ones(6)))
    with pytest.raises(ValueError, match="'none' or 'gelu'"):
        packed_conv(torch.ones(1, 4, 4, 2), conv, ConvWindow(3, 2, 1), Residual(), activation="relu")


@needs_kernels
def test_registration_passes_opcheck_and_gives_the_same() -> None:
    ops, x, shortcut = torch.ops.internimage, torch.randn(2, 5, 8), torch.randn(2, 5, 12)
    first, second = pack(*layer(8, 20, torch.float32)), pack(*layer(20, 12, torch.float32))
    norm = nn.LayerNorm(12, eps=1e-6).requires_grad_(False)
    whole = Residual.of(gamma=torch.randn(12), norm=norm, next_norm=norm)
    torch.library.opcheck(ops.packed_linear, (x, first.blocks, first.bias, 20, "gelu"))
    for residual in (Residual(), whole):
        both = [first.blocks, second.blocks], [first.bias, second.bias], [20, 12]
        torch.library.opcheck(ops.packed_perceptron, (x, shortcut, *both, "gelu", *residual))
        plain = packed_perceptron(x, (first, second), shortcut, residual, activation="gelu")
        with torch.profiler.profile() as profile:
            seen = packed_perceptron(x, (first, second), shortcut, residual, activation="gelu")
            packed_linear(x, first)
        assert torch.equal(seen[0], plain[0])
        assert (seen[1] is None) == (plain[1] is None)
        assert seen[1] is None or torch.equal(seen[1], plain[1])
        assert {"internimage::packed_linear", "internimage::packed_perceptron"} <= {e.name for e in profile.events()}
    image, conv = torch.randn(1, 5, 6, 2), pack(patch_weight(torch.randn(12, 2, 3, 3)), None)
    for residual in (Residual(), whole._replace(gamma=None)):
        torch.library.opcheck(ops.packed_conv, (image, *conv[:2], 12, [3, 2, 1], "gelu", *residual))
        plain = packed_conv(image, conv, ConvWindow(3, 2, 1), residual)
        with torch.profiler.profile():
            seen = packed_conv(image, conv, ConvWindow(3, 2, 1), residual)
        assert torch.equal(seen[0], plain[0])
        assert seen[1] is None or torch.equal(seen[1], plain[1])
