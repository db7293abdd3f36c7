"""What the Triton kernels compile to, seen without a GPU: how many kernels a model needs, and how good they are."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._functorch.aot_autograd import aot_module_simplified
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import internimage as ii
from internimage.backbones import InternImage
from internimage.backbones.config import VARIANTS, BackboneConfig, variant
from internimage.ops.deform_attn.levels import Levels
from internimage.ops.deform_conv_v4 import packed_channels
from internimage.ops.runtime.triton import support
from internimage.ops.sampling import Window

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or support.interpreting(), reason="no triton that compiles"
)
if importlib.util.find_spec("triton") is not None and not support.interpreting():
    from triton.compiler import ASTSource

    from benchmarks.compiled import CASES, TARGETS, Case, Variant, collecting, read
    from internimage.ops.deform_attn import kernel_triton as attention
    from internimage.ops.deform_conv_v3 import kernel_triton as window

ROWS = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "compiled_cpu.json").read_text())["rows"]


class _Launching(TorchDispatchMode):
    """Launches, of every operator that a model on "meta" calls, the forward and the backward kernel."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = str(func).partition(".")[2].partition(".")[0] if "internimage" in str(func) else ""
        if name not in ("dcnv3", "dcnv4", "ms_deform_attn"):
            return func(*args, **(kwargs or {}))
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        module, settings = (attention, Levels) if name == "ms_deform_attn" else (window, Window)
        chosen = settings(*(tuple(value) if isinstance(value, list) else value for value in args[len(tensors) : -1]))
        out = module.forward(*tensors, chosen)
        module.backward(out, *tensors, chosen)
        return out


SIZES = ((224, 224), (640, 800), (800, 1333), (512, 353), (1024, 96))
FORWARD, BACKWARD = ("deform_conv_v3.kernel_triton._forward_kernel", "deform_conv_v3.kernel_triton._backward_kernel")
ATTENTION = ("deform_attn.kernel_triton._backward_kernel", "deform_attn.kernel_triton._forward_kernel")


def _shallow(name: str) -> BackboneConfig:
    """A size with one block a level; the others have the same shapes."""
    return replace(variant(name), depths=(1, 1, 1, 1), level2_post_norm_block_ids=())


def _kernels(model: torch.nn.Module) -> list[Variant]:
    """What a model's forward and backward passes compile at five sizes of image, one of them with each batch."""
    with collecting("sm_90") as found, torch.no_grad(), _Launching():
        for batch, size in enumerate(SIZES, 1):
            model(torch.empty(batch, 3, *size, dtype=torch.float16, device="meta"))
    return sorted(found.values(), key=lambda kernel: kernel.name)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "internimage_xl"])
def test_a_backbone_needs_one_kernel_a_direction_whatever_its_sizes(name):
    with torch.device("meta"):
        model = InternImage(_shallow(name)).half()
    kernels = _kernels(model)
    widths = {channels // groups for channels, groups in zip(model.config.widths, model.config.groups, strict=True)}
    assert [kernel.name for kernel in kernels] == len(widths) * [BACKWARD] + len(widths) * [FORWARD]
    assert all(kernel.constants["VECTOR"] == 8 for kernel in kernels)  # 16 bytes of half precision
    assert all(kernel.constants["PAIRED"] == (model.config.operator == "dcnv3") for kernel in kernels)


def test_a_detector_needs_one_kernel_of_each_operator_and_direction():
    with torch.device("meta"):
        model = ii.create("dino", backbone=_shallow("internimage_l"), num_classes=80).half().eval()
    assert [kernel.name for kernel in _kernels(model)] == [*ATTENTION, BACKWARD, FORWARD]


@pytest.mark.parametrize("case", CASES[:6], ids=str)
def test_groups_sizes_and_batches_make_no_other_kernel(case):
    for direction in ("forward", "backward"):
        with collecting("sm_80") as found:
            for groups, sides, batch in ((4, (28, 28), 2), (7, (14, 17), 1), (1, (2, 2), 3), (16, (64, 32), 16)):
                case.launch(direction, groups, sides, batch)
        assert len(found) == 1


def test_another_type_width_or_softmax_is_another_kernel():
    with collecting("sm_90") as found:
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            for width in (16, 32):
                for softmax in (False, True):
                    Case("dcnv3", dtype, width, softmax).launch("forward")
    assert len(found) == 12


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("operator", ["dcnv3", "ms_deform_attn"])
def test_sizes_of_one_may_be_constants(operator, direction):
    """Inductor makes them so, whatever the kernel says of specializing."""
    with collecting("sm_90") as found:
        Case(operator, torch.float16, 16).launch(direction)
    (kernel,) = found.values()
    source, constants = kernel.source, dict(kernel.source.constants)
    signature = {name: "constexpr" if kind == "i32" else kind for name, kind in source.signature.items()}
    constants |= {(source.fn.arg_names.index(name),): 1 for name, kind in source.signature.items() if kind == "i32"}
    ones = replace(kernel, source=ASTSource(source.fn, signature, constants, {}))
    assert read(ones, "sm_90").corner_load_bytes >= 2  # without alignment, whose proofs were dropped here


def test_images_of_more_than_two_billion_elements_are_numbered_in_64_bits():
    with collecting("sm_90") as found:
        Case("dcnv3", torch.float16, 32).launch("forward", groups=32, sides=(2048, 1024))
        Case("dcnv3", torch.float16, 32).launch("forward", groups=32, sides=(1024, 1024), batch=64)
    assert [kernel.constants["WIDE"] for kernel in found.values()] == [True, False]


def _recorded(target: str, case: Case, direction: str) -> dict[str, Any]:
    words = (target, case.operator, direction, str(case.dtype).split(".")[1], case.width, case.softmax)
    (row,) = (row for row in ROWS if tuple(row.values())[:6] == words)
    return row


ALL = [(target, case, direction) for target in TARGETS for case in CASES for direction in ("forward", "backward")]
QUICK = [
    row for row in ALL if row[1] in (CASES[0], CASES[-2]) and (row[0] == "sm_90" or row[1:] == (CASES[0], "forward"))
]


@pytest.mark.parametrize(
    ("target", "case", "direction"),
    [pytest.param(*row, marks=[] if row in QUICK else pytest.mark.slow) for row in ALL],
    ids=str,
)
def test_what_a_kernel_compiles_to(target, case, direction):
    with collecting(target) as found:
        case.launch(direction)
    (kernel,) = found.values()
    now, recorded = asdict(read(kernel, target)), _recorded(target, case, direction)
    assert now["spilled"] == 0
    assert now["seconds"] < 60  # 1 to 4 on a quiet machine
    assert now["corner_load_bytes"] >= recorded["corner_load_bytes"]
    assert now["vector_atomics"] >= recorded["vector_atomics"]
    assert now["registers"] <= 1.25 * recorded["registers"] + 8
    if target.startswith("sm"):
        assert now["instructions"] <= 1.1 * recorded["instructions"]


def _traced(function: Any, *shapes: list[tuple[int, ...]], dynamic: bool) -> list[torch.fx.Graph]:
    """The graphs that a compiler gets of a function of half-precision tensors of a GPU, one after the other."""
    graphs: list[torch.fx.Graph] = []

    def keep(module: torch.fx.GraphModule, inputs: Any) -> torch.fx.GraphModule:
        graphs.append(module.graph)
        return module

    def backend(module: torch.fx.GraphModule, inputs: Any) -> Any:
        return aot_module_simplified(module, inputs, fw_compiler=keep)

    torch.compiler.reset()
    compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=dynamic)
    with collecting("sm_90"), FakeTensorMode():  # a driver that is asked for its target
        for sizes in shapes:
            compiled(*(torch.empty(size, dtype=torch.float16, device="cuda") for size in sizes))
    return graphs


def _window(n: int, height: int, width: int, *, packed: bool = False) -> list[tuple[int, ...]]:
    return [(n, height, width, channels) for channels in ((64, packed_channels(4, 9)) if packed else (64, 72, 36))]


def _levels(n: int, queries: int) -> list[tuple[int, ...]]:
    return [(n, 26, 4, 16), (n, queries, 4, 2, 4, 2), (n, queries, 4, 2, 4)]


# Sizes that are the same by chance are the same symbol to a compiler, so those that may change differ from all others.
SETTINGS = ([3, 3], [1, 1], [1, 1], [1, 1], 4, 1.0, False, True, "auto")
TRACED = {
    "dcnv3": (lambda *t: ii.ops.dcnv3(*t, groups=4, softmax=True), _window(2, 28, 20), _window(3, 30, 17)),
    "dcnv4": (
        lambda *t: ii.ops.dcnv4(*t, groups=4),
        _window(2, 28, 20, packed=True),
        _window(3, 30, 17, packed=True),
    ),
    "ms_deform_attn": (
        lambda v, *t: ii.ops.ms_deform_attn(v, ((4, 5), (2, 3)), *t, softmax=True),
        _levels(5, 90),
        _levels(3, 77),
    ),
    "dcnv3_backward": (
        lambda grad, *t: torch.ops.internimage.dcnv3_backward(grad, *t, *SETTINGS),
        [_window(2, 28, 20)[0], *_window(2, 28, 20)],
        [_window(3, 30, 17)[0], *_window(3, 30, 17)],
    ),
    "ms_deform_attn_backward": (
        lambda grad, *t: torch.ops.internimage.ms_deform_attn_backward(grad, *t, [4, 5, 2, 3], True, True, "auto"),
        [(5, 90, 64), *_levels(5, 90)],
        [(3, 77, 64), *_levels(3, 77)],
    ),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", TRACED)
def test_a_compiler_launches_the_kernels_itself(name, dynamic):
    function, first, second = TRACED[name]
    graphs = _traced(function, first, *([second] if dynamic else []), dynamic=dynamic)
    assert len(graphs) == 1  # of other sizes, too
    names = [str(node.target) for node in graphs[0].nodes]
    assert sum("triton_kernel_wrapper" in target for target in names) == 1
    assert not any("internimage" in target for target in names)
