"""What the GPU kernels compile to, seen without a GPU: seconds, registers, spills, instructions, widths of loads.

Run: `python -m benchmarks.run --only compiled`. Operators run on tensors of device "meta", and what they would launch
is compiled for sm_80, sm_90 and gfx942. Instructions are those of a thread, loops counted as often as they run, over
the channels that it computes.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from re import Pattern
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.record import print_table, save
from internimage.ops.deform_attn import kernel_triton as attention
from internimage.ops.deform_attn.levels import Levels
from internimage.ops.deform_conv_v3 import kernel_triton as window
from internimage.ops.deform_conv_v4 import packed_channels
from internimage.ops.runtime.triton import launch
from internimage.ops.sampling import Window

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Variant:
    """A kernel as a launch asks for it.

    Args:
        name: module and function.
        source: what is compiled.
        options: of the compiler.
    """

    name: str
    source: ASTSource
    options: dict[str, Any]

    @property
    def constants(self) -> dict[str, Any]:
        """Its constants by name."""
        return {self.source.fn.arg_names[path[0]]: value for path, value in self.source.constants.items()}

    @property
    def itemsize(self) -> int:
        """Bytes of an element of the map."""
        return 4 if next(iter(self.source.signature.values())) == "*fp32" else 2

    def channels(self, warp_size: int) -> int:
        """Channels that a thread computes."""
        return max(1, self.constants["TILE"] // (warp_size * self.options["num_warps"]))


class _Driver:
    """Stands for a device that is not there; launches end at the compiler's door."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return -100 - list(TARGETS.values()).index(self.target)  # kernels remember what they compiled by device

    def get_current_stream(self, device: int) -> int:
        return 0


@contextlib.contextmanager
def collecting(target: str) -> Iterator[dict[Any, Variant]]:
    """Collect, by key, what launches on tensors of device "meta" would compile for a target; nothing is compiled."""
    found: dict[Any, Variant] = {}

    def refuse(*, key: Any, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        source = ASTSource(fn.jit_function, compile["signature"], compile["constants"], compile["configs"][0])
        name = f"{fn.module.removeprefix('internimage.ops.')}.{fn.name}"
        found[name, key] = Variant(name, source, {"num_warps": compile["num_warps"]})
        return True

    launch.settings_of_device.cache_clear()
    triton.runtime.driver.set_active(_Driver(TARGETS[target]))
    with (
        mock.patch.object(triton.knobs.runtime, "jit_cache_hook", refuse),
        mock.patch.object(launch, "lanes", lambda: TARGETS[target].warp_size),
    ):
        yield found
    launch.settings_of_device.cache_clear()
    if torch.cuda.is_available():
        triton.runtime.driver.reset_active()


@dataclass(frozen=True)
class Case:
    """One call of an operator.

    Args:
        operator: "dcnv3", "dcnv4" or "ms_deform_attn".
        dtype: of its tensors.
        width: channels of a group.
        softmax: whether the weights are logits.
    """

    operator: str
    dtype: torch.dtype
    width: int
    softmax: bool = True

    def launch(self, direction: str, groups: int = 4, sides: tuple[int, int] = (28, 28), batch: int = 2) -> None:
        """Launch the operator's kernel on tensors without values."""

        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=self.dtype, device="meta")

        if self.operator == "ms_deform_attn":
            levels = Levels((*sides, *(side // 2 for side in sides)), normalized=True, softmax=self.softmax)
            pixels = sum(height * width for height, width in levels.shapes)
            inputs = [empty(batch, pixels, groups, self.width), empty(batch, 90, groups, 2, 4, 2)]
            inputs.append(empty(batch, 90, groups, 2, 4))
            module, settings = attention, levels
        else:
            settings = Window((3, 3), (1, 1), (1, 1), (1, 1), groups, 1.0, remove_center=False, softmax=self.softmax)
            sizes = (18 * groups, 9 * groups) if self.operator == "dcnv3" else (packed_channels(groups, 9),)
            inputs = [empty(batch, *sides, size) for size in (groups * self.width, *sizes)]
            module = window
        if direction == "forward":
            module.forward(*inputs, settings)
        else:
            shape = (batch, 90, groups * self.width) if module is attention else inputs[0].shape
            module.backward(empty(*shape), *inputs, settings)


@dataclass(frozen=True)
class Reading:
    """What a kernel compiled to; instructions are counted on NVIDIA's machines only.

    Args:
        seconds: of a processor, to compile.
        registers: of a thread.
        spilled: bytes of memory in the place of registers.
        corner_load_bytes: of one load of a corner's channels.
        vector_atomics: elements that one atomic adds, 0 where there are none.
        instructions: all of a thread's.
        per_point: those of a sampling point.
        per_channel: all, over the channels of a thread.
    """

    seconds: float
    registers: int
    spilled: int
    corner_load_bytes: int
    vector_atomics: int
    instructions: int | None
    per_point: float | None
    per_channel: float | None


def read(variant: Variant, target: str) -> Reading:
    """Compile a kernel of an operator and read the machine's instructions."""
    code, seconds = machine_code(variant, target)
    widths = [width for name in code.inner for pattern, width in _LOADS if pattern.search(name)]
    atomics = [int(found[1] or 1) for name in code.inner if (found := _ATOMIC.search(name))]
    reading = Reading(
        round(seconds, 2), code.registers, code.spilled, max(widths), max(atomics, default=0), *3 * [None]
    )
    if not target.startswith("sm"):
        return reading
    constants, channels = variant.constants, variant.channels(TARGETS[target].warp_size)
    points = constants.get("LEVELS", 1) * constants.get("POINTS", 1) * constants.get("KERNEL_H", 1)
    points *= constants.get("KERNEL_W", 1)
    loads_of_corner = max(1, channels * variant.itemsize // max(widths))
    points_inside = points if code.inner is code.instructions else widths.count(max(widths)) / 4 / loads_of_corner
    per_point = len(code.inner) / points_inside
    total = len(code.instructions) - len(code.inner) + per_point * points
    return replace(
        reading, instructions=round(total), per_point=round(per_point, 1), per_channel=round(total / channels, 1)
    )


# Bytes of a load by the end of its name: of NVIDIA's machines, then of AMD's.
_LOADS = [
    *((re.compile(rf"^LDG\.E{end}(\.|$)"), size) for end, size in ((r"\.128", 16), (r"\.64", 8), (r"\.U16", 2))),
    (re.compile(r"^LDG\.E$"), 4),
    *((re.compile(rf"^(global|buffer)_load_{end}$"), size)
      for end, size in (("dwordx4", 16), ("dwordx2", 8), ("dword", 4), ("ushort|short_d16|short_d16_hi", 2))),
]  # fmt: skip
_ATOMIC = re.compile(r"^(?:REDG?\.E\.ADD\.(?:F32(?:x(\d))?|64)|(?:global|buffer)_atomic_(?:pk_)?add)")


class Code(NamedTuple):
    """The instructions of a kernel, those of its innermost loop that loads most, and what it takes."""

    instructions: list[str]
    inner: list[str]
    registers: int
    spilled: int


def machine_code(variant: Variant, target: str) -> tuple[Code, float]:
    """Compile a kernel: what it became, and the seconds of a processor."""
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, TRITON_CACHE_DIR=cache):
        before = os.times()[:4]
        kernel = triton.compile(variant.source, target=TARGETS[target], options=variant.options)
        seconds = sum(os.times()[:4]) - sum(before)
    return _nvidia(kernel.asm["cubin"]) if target.startswith("sm") else _amd(kernel.asm["amdgcn"]), seconds


def _nvidia(cubin: bytes) -> Code:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text, usage = (_output(*command, file.name) for command in (("nvdisasm", "-c"), ("cuobjdump", "-res-usage")))
    instruction = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(.*)")
    instructions, inner = _loops(text, re.compile(r"^(\.L_x_\d+):"), instruction, re.compile(r"^BRA"))
    stack = int(re.search(r"STACK:(\d+)", usage)[1]) + int(re.search(r"LOCAL:(\d+)", usage)[1])
    return Code(instructions, inner, int(re.search(r"REG:(\d+)", usage)[1]), stack)


def _amd(text: str) -> Code:
    body, instruction = text.partition("\n.Lfunc_end")[0], re.compile(r"^\t([a-z]\w+)\s*(.*)")
    instructions, inner = _loops(body, re.compile(r"^(\.LBB\w+):"), instruction, re.compile(r"^s_c?branch"))
    registers, scratch = (
        re.search(rf"\.{name}:\s+(\d+)", text)[1] for name in ("vgpr_count", "private_segment_fixed_size")
    )
    return Code(instructions, inner, int(registers), int(scratch))


def _output(tool: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout


def _loops(text: str, label: Pattern, instruction: Pattern, branch: Pattern) -> tuple[list[str], list[str]]:
    """All instructions, and those of the shortest loop with a load of a corner; all where there is no loop."""
    names, places, loops = [], {}, []
    for line in text.splitlines():
        if found := label.search(line.strip()):
            places[found[1]] = len(names)
        elif found := instruction.search(line):
            names.append(found[1])
            target = re.search(r"\.L\w+", found[2]) if branch.search(found[1]) else None
            if target and target[0] in places:
                loops.append(names[places[target[0]] :])
    wide = [loop for loop in loops if sum(bool(re.search(r"^LDG|_load_", name)) for name in loop) >= 4]
    return names, min(wide, key=len, default=names)


CASES = [
    *(Case("dcnv3", torch.float16, width) for width in (16, 32)),
    *(Case("dcnv3", dtype, 16) for dtype in (torch.bfloat16, torch.float32)),
    Case("dcnv3", torch.float16, 16, softmax=False),
    Case("dcnv4", torch.float16, 16, softmax=False),
    Case("ms_deform_attn", torch.float16, 32),
    Case("ms_deform_attn", torch.float32, 32),
]


def run(device: str, targets: tuple[str, ...] = tuple(TARGETS)) -> None:
    """Compile, print and save; `device` makes no difference."""
    rows: list[dict[str, Any]] = []
    for target in targets:
        for case in CASES:
            for direction in ("forward", "backward"):
                with collecting(target) as found:
                    case.launch(direction)
                (variant,) = found.values()
                words = {"operator": case.operator, "direction": direction, "dtype": str(case.dtype).split(".")[1]}
                words |= {"width": case.width, "softmax": case.softmax}
                rows.append({"target": target, **words, **asdict(read(variant, target))})
    print_table("what the GPU kernels compile to", rows)
    save("compiled", device, rows, triton=triton.__version__, notes=__doc__)
