"""Norms, residual sums and GELU of rows, forward and every gradient, against float64.

The kernels run on a GPU (`-m gpu`) or in Triton's interpreter, for which `test_triton_interpreter.py` runs this file in
a process of its own; without either the same tests ask torch's operators, which take their place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from internimage.backbones import InternImage, variant
from internimage.layers.layer_norm import LayerNorm, norm_gelu
from internimage.layers.mlp import MLP
from internimage.ops.fused import (
    Residual,
    add_branch,
    add_residual_,
    add_shortcut_,
    depthwise_norm_gelu,
    gelu_,
    gelu_linear,
    have_kernels,
    layer_norm,
    reference,
    rows,
)
from internimage.ops.runtime.triton import support

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HAS_KERNELS = DEVICE == "cuda" or support.interpreting()
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []
needs_kernels = pytest.mark.skipif(not HAS_KERNELS, reason="no GPU; test_triton_interpreter.py runs this elsewhere")
TOLERANCE = {torch.float32: 4e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}
each_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
EPS = 1e-6


def vectors(channels: int, count: int) -> list[Tensor]:
    return [torch.randn(channels) for _ in range(count)]


def check(run: Callable[..., Any], definition: Callable[..., Any], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Compare results and gradients with those of the definition in float64."""
    given = [t.to(DEVICE).requires_grad_() for t in inputs]
    exact = [t.double().requires_grad_() for t in inputs]
    got, want = (
        [t for t in torch.utils._pytree.tree_leaves(f(*v)) if t is not None]
        for f, v in ((run, given), (definition, exact))
    )
    upstream = [torch.randn(t.shape).to(t.dtype) for t in got]
    gradients = torch.autograd.grad(got, given, [u.to(DEVICE) for u in upstream], allow_unused=True)
    wanted = torch.autograd.grad(want, exact, [u.double() for u in upstream], allow_unused=True)
    tolerance = max(TOLERANCE[t.dtype] for t in (*inputs, *got))
    for index, (a, b) in enumerate(zip((*want, *wanted), (*got, *gradients), strict=True)):
        assert (a is None) == (b is None), index
        if a is not None and b is not None:
            torch.testing.assert_close(
                b.detach().cpu().double(),
                a.detach(),
                rtol=tolerance,
                atol=tolerance * max(1.0, float(a.detach().abs().max())),
            )
    return [t.detach() for t in got]


@each_dtype
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("channels", [3, 24, 64, 200])
def test_layer_norm(channels: int, gelu: bool, dtype: torch.dtype, poisoned_empty: None) -> None:
    def definition(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = F.layer_norm(x, (channels,), weight, bias, EPS)
        return F.gelu(y) if gelu else y

    inputs = [2 * torch.randn(2, 5, channels).to(dtype) + 1, *vectors(channels, 2)]
    (out,) = check(lambda *values: layer_norm(*values, EPS, gelu=gelu), definition, inputs)
    assert out.dtype == dtype and out.is_contiguous()


@pytest.mark.parametrize("parts", list(itertools.product((False, True), repeat=5)), ids=str)
def test_add_branch(parts: tuple[bool, ...], poisoned_empty: None) -> None:
    has_shift, has_keep, has_gamma, has_norm, has_next = parts
    keep, channels = torch.tensor([0.0, 1.5, 2.0]), 20

    def terms(gamma: Tensor, weight: Tensor, bias: Tensor, *next_norm: Tensor) -> Residual:
        norm = (weight, bias) if has_norm else (None, None)
        return Residual(gamma if has_gamma else None, *norm, *(next_norm if has_next else (None, None)), EPS)

    def run(shortcut: Tensor, y: Tensor, shift: Tensor, *parameters: Tensor) -> Any:
        given = {"shift": shift if has_shift else None, "keep": keep.to(DEVICE) if has_keep else None}
        return add_branch(shortcut, y, terms(*parameters), **given)

    def definition(shortcut: Tensor, y: Tensor, shift: Tensor, *parameters: Tensor) -> Any:
        y = y + shift if has_shift else y
        gamma, weight, bias, *next_norm, _ = terms(*parameters)
        y = F.layer_norm(y, (channels,), weight, bias, EPS) if has_norm else y
        y = y * gamma if has_gamma else y
        total = shortcut + (y * keep.view(3, 1, 1) if has_keep else y)
        return total, F.layer_norm(total, (channels,), *next_norm, EPS) if has_next else None

    check(run, definition, [torch.randn(3, 4, channels), torch.randn(3, 4, channels), *vectors(channels, 6)])


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.bfloat16), (torch.float16, torch.float16)], ids=str)
def test_the_sum_of_two_dtypes_has_the_wider_one(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    shortcut, y = (torch.randn(2, 3, 16).to(dtype) for dtype in dtypes)

    def run(shortcut: Tensor, y: Tensor, *parameters: Tensor) -> Any:
        return add_branch(shortcut, y, Residual(*parameters, EPS), dtype=dtypes[1])

    def definition(shortcut: Tensor, y: Tensor, *parameters: Tensor) -> Any:
        total = shortcut + parameters[0] * F.layer_norm(y, (16,), *parameters[1:3], EPS)
        return total, F.layer_norm(total, (16,), *parameters[3:], EPS)

    total, normed = check(run, definition, [shortcut, y, *vectors(16, 5)])
    assert (total.dtype, normed.dtype) == dtypes


@each_dtype
def test_gelu_linear(dtype: torch.dtype, poisoned_empty: None) -> None:
    x, weight = torch.randn(2, 5, 300).to(dtype), (torch.randn(7, 300) / 17).to(dtype)
    check(gelu_linear, lambda x, shift, weight: F.linear(F.gelu(x + shift), weight), [x, torch.randn(300), weight])


@needs_kernels
def test_gradients_of_parameters_are_sums_over_all_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_triton = rows.kernels()
    monkeypatch.setattr(kernel_triton, "PROGRAMS", 2)
    monkeypatch.setattr(kernel_triton, "TILE", 256)
    kernel_triton._tile_of.cache_clear()
    inputs = [torch.randn(23, 16), *vectors(16, 2)]
    check(lambda *v: layer_norm(*v, EPS), lambda x, w, b: F.layer_norm(x, (16,), w, b, EPS), inputs)
    inputs = [torch.randn(23, 16), torch.randn(16), torch.randn(3, 16)]
    check(gelu_linear, lambda x, s, w: F.linear(F.gelu(x + s), w), inputs)
    kernel_triton._tile_of.cache_clear()


def test_second_derivatives() -> None:
    def double(run: Callable[..., Any]) -> Callable[..., Any]:
        def gradients(*values: Tensor) -> Any:
            outputs = [t for t in torch.utils._pytree.tree_leaves(run(*values)) if t is not None]
            return torch.autograd.grad([t.square().sum() for t in outputs], values, create_graph=True)

        return gradients

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.gelu(F.layer_norm(x, (8,), weight, bias, EPS))

    def branch(shortcut: Tensor, y: Tensor, shift: Tensor, gamma: Tensor, *parameters: Tensor) -> Any:
        total = shortcut + gamma * F.layer_norm(y + shift, (8,), *parameters[:2], EPS)
        return total, F.layer_norm(total, (8,), *parameters[2:], EPS)

    x = [torch.randn(4, 8), torch.randn(4, 8)]
    check(double(lambda *v: layer_norm(*v, EPS, gelu=True)), double(norm), [x[0], *vectors(8, 2)])
    ours = lambda shortcut, y, shift, *v: add_branch(shortcut, y, Residual(*v, EPS), shift=shift)  # noqa: E731
    check(double(ours), double(branch), [*x, *vectors(8, 6)])
    check(
        double(gelu_linear),
        double(lambda x, s, w: F.linear(F.gelu(x + s), w)),
        [x[0], torch.randn(8), torch.randn(3, 8)],
    )


def test_several_gradients_at_once() -> None:
    x = torch.randn(4, 8, device=DEVICE, requires_grad=True)
    weight, bias = torch.randn(8, device=DEVICE), torch.randn(8, device=DEVICE)
    y = layer_norm(x, weight, bias, EPS)
    upstream = torch.randn(3, 4, 8, device=DEVICE)
    (together,) = torch.autograd.grad(y, x, upstream, is_grads_batched=True, retain_graph=True)
    for one, each in zip(together, upstream, strict=True):
        torch.testing.assert_close(one, torch.autograd.grad(y, x, each, retain_graph=True)[0])


def test_empty_and_strided_rows() -> None:
    weight, bias = torch.randn(6, device=DEVICE, requires_grad=True), torch.zeros(6, device=DEVICE)
    layer_norm(torch.zeros(0, 3, 6, device=DEVICE), weight, bias, EPS).sum().backward()
    assert weight.grad is not None and not bool(weight.grad.any())
    x = torch.randn(2, 6, 3, 5, device=DEVICE).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer_norm(x, weight, bias, EPS), layer_norm(x.contiguous(), weight, bias, EPS))


@needs_kernels
@each_dtype
def test_inference_steps(dtype: torch.dtype, poisoned_empty: None) -> None:
    y, shortcut = (torch.randn(3, 5, 24).to(DEVICE, dtype) for _ in range(2))
    terms = Residual(*(t.to(DEVICE, dtype) for t in vectors(24, 5)), EPS)
    exact = Residual(*(t.double() for t in terms[:-1]), EPS)
    total, normed = y.double(), torch.empty_like(y, dtype=torch.float64)
    reference.add_shortcut_(total, shortcut.double(), normed, *exact)
    close = {"rtol": TOLERANCE[dtype], "atol": 3 * TOLERANCE[dtype]}
    own, after = shortcut.clone(), torch.empty_like(y)
    add_residual_(own, y, terms, after)
    found = add_shortcut_(y, shortcut, terms)
    assert torch.equal(y, own) and torch.equal(after, found)
    torch.testing.assert_close(y.double(), total, **close)
    torch.testing.assert_close(after.double(), normed, **close)
    torch.testing.assert_close(gelu_(shortcut.clone()).double(), F.gelu(shortcut.double()), **close)


@needs_kernels
@pytest.mark.parametrize("size", [1, 3, 5])
def test_depthwise_step(size: int, poisoned_empty: None) -> None:
    x = torch.randn(2, 4, 5, 12, device=DEVICE)
    conv, norm = nn.Conv2d(12, 12, size, padding=size // 2, groups=12).to(DEVICE), LayerNorm(12, eps=EPS).to(DEVICE)
    with torch.no_grad():
        want = reference.depthwise_norm_gelu(x, conv.weight, conv.bias, norm.weight, norm.bias, EPS)
        torch.testing.assert_close(depthwise_norm_gelu(x, conv, norm), want, rtol=1e-5, atol=1e-5)


@needs_kernels
def test_a_norm_under_autocast_is_read_as_it_is() -> None:
    x = torch.randn(4, 12, device=DEVICE)
    before, other = (LayerNorm(12, eps=EPS, before_product=flag).to(DEVICE) for flag in (True, False))
    with torch.autocast(DEVICE, torch.bfloat16):
        for dtype in (torch.float32, torch.bfloat16):
            assert before(x.to(dtype)).dtype is torch.bfloat16
            assert other(x.to(dtype)).dtype is torch.float32
        assert norm_gelu(x, before, nn.GELU()).dtype is torch.bfloat16
    assert before(x.half()).dtype is torch.float16


@needs_kernels
def test_hooks_are_called() -> None:
    seen: list[str] = []
    norm, mlp, act = LayerNorm(8).to(DEVICE), MLP(8, 16).to(DEVICE), nn.GELU()
    for name, layer in (("norm", norm), ("fc1", mlp.fc1), ("fc2", mlp.fc2)):
        layer.register_forward_hook(lambda *_, name=name: seen.append(name))
    mlp(norm_gelu(torch.randn(2, 8, device=DEVICE), norm, act))
    assert seen == ["norm", "fc1", "fc2"]


CONFIG = replace(variant("internimage_pico"), depths=(1, 1, 1, 1), channels=8, groups=(1, 2, 4, 8))
SIZES = {
    "T": CONFIG,
    "S": replace(CONFIG, post_norm=True, layer_scale=0.5),
    "H": replace(
        CONFIG, res_post_norm=True, dw_kernel_size=5, level2_post_norm_block_ids=(0,), center_feature_scale=True
    ),
    "flash T": replace(CONFIG, operator="dcnv4", output_bias=False, mlp_output_bias=False),
}


def network(name: str) -> InternImage:
    model = InternImage(SIZES[name])
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.1)
    return model.to(DEVICE)


@needs_kernels
@pytest.mark.parametrize("name", SIZES)
def test_a_network_trains_as_with_torchs_operators(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = network(name).train(), torch.randn(2, 3, 32, 32, device=DEVICE)
    parameters = list(model.parameters())

    def run() -> tuple[Tensor, ...]:
        maps = model(pixels).maps
        return *maps, *torch.autograd.grad(sum(m.square().mean() for m in maps), parameters)

    got = run()
    for module in ("ops.fused.rows", "layers.layer_norm", "layers.mlp", "backbones.blocks"):
        monkeypatch.setattr(f"internimage.{module}.have_kernels", lambda x: False)
    for a, b in zip(got, run(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * max(1.0, float(b.detach().abs().max())))


@needs_kernels
@pytest.mark.parametrize("name", SIZES)
def test_fuse_changes_rounding_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # its convolutions have 10 bits of precision
    model, pixels = network(name), torch.randn(1, 3, 32, 32, device=DEVICE)
    with torch.no_grad():
        want = model.train()(pixels).maps
        got = model.fuse()(pixels).maps
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * max(1.0, float(b.abs().max())))


@needs_kernels
def test_stochastic_depth_drops_whole_images() -> None:
    block = InternImage(replace(CONFIG, drop_path_rate=0.9, drop_path_type="uniform")).levels[0].blocks[0].to(DEVICE)
    x = torch.randn(16, 2, 2, 8, device=DEVICE)
    with torch.no_grad():
        changed = (block.train()(x) != x).flatten(1)
    assert 0 < int(changed.any(1).sum()) < 16
    assert all(bool(image.all()) for image in changed if bool(image.any()))


@needs_kernels
def test_the_perceptron_keeps_its_hidden_rows_once() -> None:
    mlp, x = MLP(8, 32).to(DEVICE), torch.randn(4, 8, device=DEVICE, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = mlp(x)
    assert sum(t.shape == (4, 32) for t in kept) == 1
    want = F.linear(F.gelu(mlp.fc1(x)), mlp.fc2.weight, mlp.fc2.bias)
    torch.testing.assert_close(y, want, rtol=1e-5, atol=1e-5)
    again = checkpoint(mlp, x, use_reentrant=False)
    for a, b in zip(torch.autograd.grad(again.sum(), x), torch.autograd.grad(want.sum(), x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@needs_kernels
def test_compilers_see_torchs_operators() -> None:
    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return layer_norm(x, weight, bias, EPS)

    values = torch.randn(4, 8, device=DEVICE), torch.randn(8, device=DEVICE), torch.randn(8, device=DEVICE)
    assert have_kernels(values[0])
    compiled = torch.compile(norm, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*values), norm(*values))
