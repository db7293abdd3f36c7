"""Derivatives beyond the backward pass: forward mode, torch.func, second order; and slopes at pixel lines."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, jacfwd, jacrev, jvp, vjp, vmap

from internimage.ops import dcnv3, dcnv4, ms_deform_attn
from internimage.ops.deform_conv_v4.reference import unpack
from internimage.ops.regions import align_regions, average_regions
from internimage.ops.runtime import library
from internimage.ops.sampling import Window

# torch itself loads scripts when it first differentiates forward.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")

Operator = Callable[..., Tensor]
SHAPES = ((3, 4), (2, 2))


def window_inputs(batch: int = 2) -> list[Tensor]:
    return [torch.randn(batch, 3, 4, channels, dtype=torch.float64) for channels in (4, 36, 18)]


def packed_inputs(batch: int = 2) -> list[Tensor]:
    return [torch.randn(batch, 3, 4, channels, dtype=torch.float64) for channels in (4, 56)]


def level_inputs(batch: int = 2) -> list[Tensor]:
    sizes = ((batch, 16, 2, 2), (batch, 3, 2, 2, 2, 2), (batch, 3, 2, 2, 2))
    return [torch.rand(size, dtype=torch.float64) for size in sizes]


OPERATORS: dict[str, tuple[Operator, Callable[..., list[Tensor]]]] = {
    "dcnv3": (lambda *t, **how: dcnv3(*t, groups=2, softmax=True, **how), window_inputs),
    "dcnv4": (lambda *t, **how: dcnv4(*t, groups=2, **how), packed_inputs),
    "ms_deform_attn": (lambda v, *t, **how: ms_deform_attn(v, SHAPES, *t, softmax=True, **how), level_inputs),
}
each_operator = pytest.mark.parametrize("name", OPERATORS)
each_backend = pytest.mark.parametrize("backend", ["cpp", "reference"])


def prepare(name: str, backend: str, batch: int = 2) -> tuple[Operator, list[Tensor]]:
    function, inputs = OPERATORS[name]
    return partial(function, backend=backend), inputs(batch)


def slope(function: Operator, inputs: list[Tensor], along: list[Tensor], step: float = 1e-6) -> Tensor:
    """The derivative along a direction, from differences."""
    after, before = (
        function(*(a + sign * step * b for a, b in zip(inputs, along, strict=True))) for sign in (1.0, -1.0)
    )
    return (after - before) / (2 * step)


@each_operator
@each_backend
def test_forward_mode(name, backend):
    function, inputs = prepare(name, backend)
    along = [torch.randn_like(tensor) for tensor in inputs]
    want = slope(function, inputs, along)
    torch.testing.assert_close(jvp(function, tuple(inputs), tuple(along))[1], want, atol=1e-7, rtol=1e-6)
    for needs_grad in (False, True):
        leaves = [tensor.clone().requires_grad_(needs_grad) for tensor in inputs]
        with torch.no_grad(), forward_ad.dual_level():
            duals = [forward_ad.make_dual(a, b) for a, b in zip(leaves, along, strict=True)]
            primal, tangent = forward_ad.unpack_dual(function(*duals))
        torch.testing.assert_close(primal, function(*inputs))
        assert tangent is not None
        torch.testing.assert_close(tangent, want, atol=1e-7, rtol=1e-6)


@each_operator
@each_backend
def test_transforms_of_the_gradient(name, backend):
    function, inputs = prepare(name, backend)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    y = function(*leaves)
    upstream = torch.randn_like(y)
    want = torch.autograd.grad(y, leaves, upstream)
    numbers = tuple(range(len(inputs)))
    for got in (
        grad(lambda *t: (function(*t) * upstream).sum(), numbers)(*inputs),
        vjp(function, *inputs)[1](upstream),
    ):
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


@each_operator
@each_backend
def test_gradients_of_single_images(name, backend):
    function, inputs = prepare(name, backend, batch=3)

    def loss(*single: Tensor) -> Tensor:
        return (function(*(tensor[None] for tensor in single)) ** 2).sum()

    numbers = tuple(range(len(inputs)))
    got = vmap(grad(loss, numbers))(*inputs)
    twice = vmap(vmap(grad(loss, numbers)))(*(tensor[None] for tensor in inputs))
    for i in range(3):
        leaves = [tensor[i].clone().requires_grad_() for tensor in inputs]
        for a, b, c in zip(got, twice, torch.autograd.grad(loss(*leaves), leaves), strict=True):
            torch.testing.assert_close(a[i], c)
            torch.testing.assert_close(b[0, i], c)


@each_operator
@each_backend
def test_vmap_over_any_axis_and_over_one_argument(name, backend):
    function, inputs = prepare(name, backend)
    first, *others = inputs
    stacked = [torch.stack((tensor, 0.9 * tensor, 1.1 * tensor), dim=2) for tensor in others]
    got = vmap(function, in_dims=(None, *(2 for _ in others)), out_dims=1)(first, *stacked)
    for i, factor in enumerate((1.0, 0.9, 1.1)):
        torch.testing.assert_close(got[:, i], function(first, *(factor * tensor for tensor in others)))


@each_operator
@each_backend
def test_jacobians_agree(name, backend):
    function, inputs = prepare(name, backend, batch=1)

    def few(*tensors: Tensor) -> Tensor:
        return function(*tensors).flatten()[:3]

    backward, forward = jacrev(few, 1)(*inputs), jacfwd(few, 1)(*inputs)
    torch.testing.assert_close(backward, forward)
    fast = torch.autograd.functional.jacobian(lambda t: few(inputs[0], t, *inputs[2:]), inputs[1], vectorize=True)
    torch.testing.assert_close(fast, backward)


@each_operator
@each_backend
def test_second_derivatives(name, backend):
    function, inputs = prepare(name, backend, batch=1)
    upstream = torch.randn_like(function(*inputs))

    def penalty(*tensors: Tensor) -> Tensor:
        """The sum of the squares of the gradients."""
        leaves = [t if t.requires_grad else t.detach().requires_grad_() for t in tensors]
        gradients = torch.autograd.grad(function(*leaves), leaves, upstream, create_graph=True)
        return sum(((g**2).sum() for g in gradients), start=torch.zeros(()))

    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    along = [torch.randn_like(tensor) for tensor in inputs]
    got = torch.autograd.grad(penalty(*leaves), leaves)
    total = sum(float((a * b).sum()) for a, b in zip(got, along, strict=True))
    assert total == pytest.approx(float(slope(penalty, inputs, along).detach()), rel=1e-5)


@each_operator
@each_backend
def test_products_with_the_hessian(name, backend):
    function, inputs = prepare(name, backend, batch=1)

    def energy(t: Tensor) -> Tensor:
        return (function(inputs[0], t, *inputs[2:]) ** 2).sum()

    given, along = inputs[1], torch.randn_like(inputs[1])
    _, forward = jvp(grad(energy), (given,), (along,))
    (backward,) = vjp(grad(energy), given)[1](along)
    torch.testing.assert_close(forward, backward)
    _, pull = vjp(energy, given)
    one = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(jvp(lambda g: pull(g)[0], (one,), (one,))[1], grad(energy)(given))
    leaf = given.clone().requires_grad_()
    (first,) = torch.autograd.grad(energy(leaf), leaf, create_graph=True)
    torch.testing.assert_close(torch.autograd.grad((first * along).sum(), leaf)[0], forward)


@pytest.mark.parametrize(
    "name", ["dcnv3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dcnv4", "ms_deform_attn"))]
)
def test_compiled_transforms(name):
    function, inputs = prepare(name, "cpp")
    torch.compiler.reset()

    def both(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        gradient = grad(lambda *t: function(*t).sum())(*tensors)
        return gradient, jvp(function, tensors, tensors)[1]

    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)
    for a, b in zip(compiled(*inputs), both(*inputs), strict=True):
        torch.testing.assert_close(a, b)


@each_operator
def test_second_derivatives_where_something_watches(name):
    function, inputs = prepare(name, "cpp", batch=1)
    leaves = [tensor.requires_grad_() for tensor in inputs]

    def twice() -> Tensor:
        (first,) = torch.autograd.grad((function(*leaves) ** 2).sum(), leaves[:1], create_graph=True)
        return torch.autograd.grad((first**2).sum(), leaves[:1])[0]

    want = twice()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        torch.testing.assert_close(twice(), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("start", ["zero", "whole"])
@each_backend
def test_slopes_at_pixel_lines_are_the_right_hand_ones(start, backend, dtype, compare, window_oracle):
    x, mask = torch.randn(1, 7, 9, 8, dtype=dtype), torch.rand(1, 7, 9, 18, dtype=dtype)
    offset = torch.zeros(1, 7, 9, 36, dtype=dtype)
    if start == "whole":
        offset += torch.randint(-5, 6, offset.shape)

    tolerance = 1e-12 if dtype == torch.float64 else 2e-6 if backend == "cpp" else 1e-5

    def oracle(x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        return window_oracle(x, offset.unflatten(-1, (2, 9, 2)), mask.unflatten(-1, (2, 9)), groups=2)

    compare(oracle, partial(dcnv3, groups=2, backend=backend), [x, offset, mask], tolerance)
    packed = torch.cat((offset.unflatten(-1, (2, 18)), mask.unflatten(-1, (2, 9))), dim=-1).flatten(3)
    window = Window((3, 3), (1, 1), (1, 1), (1, 1), 2, 1.0, False, False)
    compare(
        lambda x, packed: oracle(x, *unpack(packed, window)),
        partial(dcnv4, groups=2, backend=backend),
        [x, torch.nn.functional.pad(packed, (0, 2))],
        tolerance,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("normalized", [True, False])
def test_slopes_at_the_centers_of_cells_agree(dtype, normalized):
    """Queries look at the centers of cells first, where the rounding of a location decides on its side of the line."""
    # The build for any x86 processor has no fused multiply-add: products of other sides are rounded there.
    is_rounded = library.instruction_set() == "baseline"
    shapes = ((16, 8), (8, 4), (4, 4)) if is_rounded else ((13, 11), (7, 6), (3, 3))
    height, width = shapes[1]
    value = torch.randn(1, sum(h * w for h, w in shapes), 2, 4, dtype=dtype)
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centers = (torch.stack((columns, rows), dim=-1) / torch.tensor((width, height))).to(dtype).flatten(0, 1)  # (Q, 2)
    locations = centers[None, :, None, None, None].repeat(1, 1, 2, 3, 2, 1)
    if not normalized:
        locations = (locations * torch.tensor(shapes).flip(-1)[:, None]).round()
    weights = torch.rand(locations.shape[:-1], dtype=dtype)
    upstream = torch.randn(1, height * width, 8, dtype=dtype)
    results = []
    for backend in ("cpp", "reference"):
        leaves = [tensor.clone().requires_grad_() for tensor in (value, locations, weights)]
        y = ms_deform_attn(leaves[0], shapes, *leaves[1:], normalized=normalized, backend=backend)
        results.append([y.detach(), *torch.autograd.grad(y, leaves, upstream)])
    for a, b in zip(*results, strict=True):
        assert float((a - b).abs().max()) <= (1e-5 if dtype == torch.float32 else 1e-12) * float(a.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("far", [1e4, 6e4, math.inf, -math.inf, math.nan, "largest"])
@each_operator
@each_backend
def test_points_far_away_sample_nothing(name, backend, far, dtype):
    function, inputs = prepare(name, backend)
    tensors = [tensor.to(dtype) for tensor in inputs]
    value = torch.finfo(dtype).max if far == "largest" else float(far)
    # dcnv4 holds offsets and weights together: all of them, weights too, are as large as that
    if name == "dcnv4":
        by_group = tensors[1][..., :54].unflatten(-1, (2, 27))
        by_group[..., :18] = value
    else:
        tensors[1].fill_(value)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    y = function(*leaves)
    assert torch.equal(y, torch.zeros_like(y))
    for gradient in torch.autograd.grad(y.sum(), leaves):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@each_operator
@each_backend
def test_forward_mode_of_points_far_away_is_zero(name, backend):
    function, inputs = prepare(name, backend)
    inputs[1].fill_(math.inf)
    if name == "dcnv4":
        inputs[1].unflatten(-1, (2, 28))[..., 18:] = 1.0
        inputs[1][..., 18:27], inputs[1][..., 45:54] = 1.0, 1.0
    _, tangent = jvp(function, tuple(inputs), tuple(torch.ones_like(tensor) for tensor in inputs))
    assert torch.equal(tangent, torch.zeros_like(tangent))


@each_operator
@each_backend
def test_nothing_to_do_gives_every_tensor_a_gradient(name, backend):
    function, inputs = prepare(name, backend, batch=0)
    leaves = [tensor.requires_grad_() for tensor in inputs]
    y = function(*leaves)
    y.sum().backward()
    assert y.numel() == 0
    assert all(leaf.grad is not None and leaf.grad.shape == leaf.shape for leaf in leaves)


@each_operator
@each_backend
def test_any_layout(name, backend):
    function, inputs = prepare(name, backend)
    want = function(*inputs)
    wide = [torch.cat((tensor, tensor), dim=2)[:, :, : tensor.shape[2]] for tensor in inputs]
    turned = [tensor.transpose(1, -1).contiguous().transpose(1, -1) for tensor in inputs]
    every_second = [torch.stack((tensor, tensor), dim=-1).flatten(-2)[..., ::2] for tensor in inputs]
    for tensors in (wide, turned, every_second):
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        y = function(*leaves)
        torch.testing.assert_close(y, want)
        y.sum().backward()


def test_regions_have_all_derivatives():
    x = torch.randn(2, 3, 8, 9, dtype=torch.float64)
    rois = torch.tensor([[0.0, 0.3, 0.1, 4.2, 5.3], [1.0, 1.2, 2.7, 7.1, 6.9]], dtype=torch.float64)
    regions = partial(align_regions, rois=rois, side=2, scale=1.0)
    want = regions(x)
    torch.testing.assert_close(jvp(regions, (x,), (x,))[1], want)  # linear in the map
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(regions(forward_ad.make_dual(x, x)))
    assert dual.tangent is not None
    torch.testing.assert_close(dual.tangent, want)

    def energy(x: Tensor) -> Tensor:
        return (regions(x) ** 2).sum()

    leaf = x.float().requires_grad_()
    cells = average_regions(leaf, rois.float(), 2, 1.0)
    (first,) = torch.autograd.grad((cells**2).sum(), leaf, create_graph=True)
    torch.testing.assert_close(grad(energy)(x), first.detach().double(), atol=1e-4, rtol=1e-4)
    (second,) = torch.autograd.grad(first.square().sum(), leaf)
    _, product = jvp(grad(energy), (x,), (2 * grad(energy)(x),))
    torch.testing.assert_close(second.double(), product, atol=1e-3, rtol=1e-3)
