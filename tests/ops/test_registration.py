"""What torch expects of a custom operator, for all of ours: opcheck, compile, export, autocast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from internimage.ops import dcnv3, dcnv4, ms_deform_attn

SHAPES = ((4, 5), (2, 3))
WINDOW = ([3, 3], [1, 1], [1, 1], [1, 1], 2, 1.0, False, True, "auto")


def window_inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(2, 5, 6, channels, dtype=dtype) for channels in (8, 36, 18)]


def packed_inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(2, 5, 6, channels, dtype=dtype) for channels in (8, 56)]


def level_inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    sizes = ((2, 26, 2, 4), (2, 7, 2, 2, 3, 2), (2, 7, 2, 2, 3))
    return [torch.rand(size, dtype=dtype) for size in sizes]


OPERATORS: dict[str, tuple[Callable[..., Tensor], Callable[..., list[Tensor]], tuple]] = {
    "dcnv3": (lambda *t: dcnv3(*t, groups=2, softmax=True), window_inputs, WINDOW),
    "dcnv4": (lambda *t: dcnv4(*t, groups=2, softmax=True), packed_inputs, WINDOW),
    "ms_deform_attn": (
        lambda v, *t: ms_deform_attn(v, SHAPES, *t, softmax=True),
        level_inputs,
        ([4, 5, 2, 3], True, True, "auto"),
    ),
}
each_operator = pytest.mark.parametrize("name", OPERATORS)


@each_operator
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # opcheck itself reads .grad of non-leaves
def test_opcheck(name):
    _, inputs, settings = OPERATORS[name]
    tensors = inputs()
    output = OPERATORS[name][0](*tensors)
    backward = getattr(torch.ops.internimage, f"{name}_backward").default
    torch.library.opcheck(backward, (torch.randn_like(output), *tensors, *settings))
    leaves = [tensor.requires_grad_() for tensor in tensors]
    torch.library.opcheck(getattr(torch.ops.internimage, name).default, (*leaves, *settings))


@each_operator
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile_without_graph_breaks(name, compiler):
    function, inputs, _ = OPERATORS[name]
    torch.compiler.reset()
    compiled = torch.compile(lambda *t: function(*t).sin(), fullgraph=True, backend=compiler)
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    got, want = compiled(*leaves), function(*leaves).sin()
    torch.testing.assert_close(got, want)
    upstream = torch.randn_like(want)
    for a, b in zip(
        torch.autograd.grad(got, leaves, upstream), torch.autograd.grad(want, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(a, b)


class _Module(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)


@each_operator
def test_export_shows_one_node(name):
    function, inputs, _ = OPERATORS[name]
    tensors = tuple(inputs())
    batch = torch.export.Dim("batch", min=1)
    dynamic = (tuple({0: batch} for _ in tensors),)
    program = torch.export.export(_Module(function), tensors, dynamic_shapes=dynamic)
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    assert [str(node.target) for node in nodes] == [f"internimage.{name}.default"]
    other = tuple(torch.cat((tensor, tensor)) for tensor in tensors)
    torch.testing.assert_close(program.module()(*other), function(*other))


@each_operator
def test_reference_exports_as_ordinary_operators(name):
    operators = {
        "dcnv3": lambda *t: dcnv3(*t, groups=2, backend="reference"),
        "dcnv4": lambda *t: dcnv4(*t, groups=2, backend="reference"),
        "ms_deform_attn": lambda v, *t: ms_deform_attn(v, SHAPES, *t, backend="reference"),
    }
    tensors = tuple(OPERATORS[name][1]())
    program = torch.export.export(_Module(operators[name]), tensors)
    assert not any("internimage" in str(node.target) for node in program.graph.nodes)


@each_operator
@pytest.mark.parametrize("compiled", [False, True])
def test_autocast(name, compiled):
    function, inputs, _ = OPERATORS[name]
    tensors = inputs()
    run = torch.compile(function, fullgraph=True, backend="aot_eager") if compiled else function
    with torch.autocast("cpu", torch.bfloat16):
        got = run(*tensors)
        mixed = run(tensors[0].bfloat16(), *tensors[1:])
        assert run(*inputs(torch.float64)).dtype == torch.float64
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, mixed)
    torch.testing.assert_close(got, function(*(tensor.bfloat16() for tensor in tensors)))


@each_operator
def test_gradients_under_autocast_have_the_dtype_of_the_inputs(name):
    function, inputs, _ = OPERATORS[name]
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    with torch.autocast("cpu", torch.bfloat16):
        function(*leaves).float().sum().backward()
    assert all(tensor.grad.dtype == torch.float32 for tensor in leaves)


@each_operator
def test_deterministic_mode(name):
    function, inputs, _ = OPERATORS[name]
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    torch.use_deterministic_algorithms(True)
    try:
        first = torch.autograd.grad(function(*leaves).sum(), leaves)
        second = torch.autograd.grad(function(*leaves).sum(), leaves)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@each_operator
def test_meta_tensors_give_the_shape(name):
    function, inputs, _ = OPERATORS[name]
    want = function(*inputs())
    got = function(*(tensor.to("meta") for tensor in inputs()))
    assert got.shape == want.shape


class _Seen(TorchDispatchMode):
    """Lists the operators that run below it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@each_operator
def test_the_direct_way_gives_the_same_bits_and_observers_see_the_registered_operator(name):
    function, inputs, settings = OPERATORS[name]
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    direct, registered = function(*leaves), getattr(torch.ops.internimage, name)(*leaves, *settings)
    assert type(direct.grad_fn) is not type(registered.grad_fn)
    assert torch.equal(direct, registered)
    upstream = torch.randn_like(direct)
    for a, b in zip(
        torch.autograd.grad(direct, leaves, upstream), torch.autograd.grad(registered, leaves, upstream), strict=True
    ):
        assert torch.equal(a, b)
    with _Seen() as seen:
        function(*leaves)
    assert f"internimage.{name}.default" in seen.names
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function(*leaves)
    assert f"internimage::{name}" in {event.key for event in profile.key_averages()}
