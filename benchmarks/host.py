"""What Python does around the kernels of one block: calls and microseconds, with kernels that do nothing.

The map has four pixels, so that torch's own operators take little more than their call. Of our own kernels all but the
kernel runs: on the way of a CPU a function that returns at once stands for the compiled one; on the way of a GPU the
Triton kernels are compiled for an H100 and found, bound and launched as ever, by a driver that does nothing. What no
CPU shows is what launches cost in the driver, some 5 microseconds each, torch's own included. With `--device cuda`
nothing is replaced, and the time is that until all work is queued.

Run: `python -m benchmarks.run --only host [--device cuda]`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType, SimpleNamespace
from typing import Any
from unittest import mock

import torch

from benchmarks.blocks import VARIANTS, build
from benchmarks.record import print_table, save
from internimage.backbones import variant
from internimage.cli.measuring.timing import interleave
from internimage.layers.fused import fuse, packed_linear
from internimage.ops import backends
from internimage.ops.fused import rows
from internimage.ops.runtime import library
from internimage.ops.runtime.triton import support

FORMS = ("eager", "fused")
SIDE = 2


def count_calls(function: Callable[[], object]) -> Counter[str]:
    """Calls of Python functions ("call") and of C functions ("c_call") while `function` runs, its own included."""
    calls: Counter[str] = Counter()

    def see(frame: FrameType, event: str, argument: object) -> None:
        calls[event] += 1

    sys.setprofile(see)
    try:
        function()
    finally:
        sys.setprofile(None)
    calls["c_call"] -= 1  # the one that ends the count
    return calls


class StubLibrary:
    """The compiled library with kernels that return at once; `launches` counts them."""

    def __init__(self) -> None:
        self.library, self.launches = library.kernels(), 0

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.library, name)
        return function if "instruction_set" in name or name.endswith("missing") else self._launch

    def _launch(self, arguments: object) -> int:
        self.launches += 1
        return 0


class StubDriver:
    """A driver of Triton, for an H100 that is not there.

    `launches` counts what it is asked to launch, `compiled` lists the kernels that it was given.
    """

    def __init__(self) -> None:
        from triton.backends.compiler import GPUTarget

        self.target, self.launches = GPUTarget("cuda", 90, 32), 0
        self.compiled: list[str] = []

    def get_current_target(self) -> Any:
        """Device to compile for."""
        return self.target

    def get_current_device(self) -> int:
        """Index of the device."""
        return -1  # what Triton keeps for it is never met on a device

    def get_current_stream(self, device: int) -> int:
        """Address of the stream."""
        return 0

    def compile(self, function: Any, key: str, signature: object, device: int, *settings: object) -> Any:
        """In the place of Triton's: keep and return a kernel that does nothing."""
        self.compiled.append(function.fn.__name__)
        kernel = SimpleNamespace(
            run=self._launch, function=0, packed_metadata=(), launch_metadata=lambda *arguments: None
        )
        function.device_caches[device][0][key] = kernel
        return kernel

    def _launch(self, *arguments: object) -> None:
        self.launches += 1


@cache
def stub_driver() -> StubDriver:
    """The one driver of the process: Triton keeps kernels."""
    return StubDriver()


@contextmanager
def stubbed(backend: str) -> Iterator[StubLibrary | StubDriver]:
    """Let the kernels of "cpp" or "triton" do nothing, on tensors of a CPU."""
    if backend == "cpp":
        stub = StubLibrary()
        with mock.patch.object(library, "kernels", lambda: stub):
            yield stub
        return
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    device = stub_driver()
    with (
        mock.patch.object(driver, "_active", device),
        mock.patch.object(JITFunction, "_do_compile", lambda function, *settings: device.compile(function, *settings)),
        mock.patch.object(support, "interpreting", lambda: True),  # which lets kernels take tensors of a CPU
        mock.patch.object(rows, "INTERPRETING", True),
        mock.patch.dict(backends._chosen, clear=True),
        mock.patch.object(library, "linear_missing_reason", lambda dtype: "a GPU has products of its own"),
        mock.patch.object(packed_linear, "_has_blocked_product", lambda weight: False),
    ):
        yield device


def measure(name: str, backend: str, form: str, device: str, seconds: float) -> dict[str, Any]:
    """Calls, launches and microseconds of one block of level 0 in a forward pass for inference."""
    dtype = torch.float32 if device == "cpu" else torch.float16
    block = build(name, 0, device, dtype, "auto" if backend == "cpp" else backend)
    x = torch.randn(1, SIDE, SIDE, variant(name).widths[0], device=device, dtype=dtype)
    row: dict[str, Any] = {"model": name, "backend": backend, "form": form}
    with torch.inference_mode():
        if device == "cuda":
            if form == "fused":
                fuse(block)
            return {**row, "launches": None, **_host(lambda: block(x), seconds)}
        with stubbed(backend) as stub:
            if form == "fused":
                fuse(block)
            block(x)
            before = stub.launches
            block(x)
            return {**row, "launches": stub.launches - before, **_host(lambda: block(x), seconds)}


def _host(function: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Calls and microseconds of `function`; on a GPU they end when all is queued."""
    function()
    calls = count_calls(function)
    timing = interleave({"block": function}, seconds=seconds, rounds=50)["block"]
    return {
        "python_calls": calls["call"],
        "c_calls": calls["c_call"],
        "best_us": timing.best * 1e3,
        "p50_us": timing.p50 * 1e3,
    }


def run(device: str, *, seconds: float = 1.0) -> None:
    """Count, measure, print and save."""
    torch.set_num_threads(1)
    backend_names = ("triton",) if device == "cuda" else ("cpp", "triton")
    measured = [
        measure(name, backend, form, device, seconds)
        for name in VARIANTS
        for backend in backend_names
        for form in FORMS
    ]
    print_table(f"Python around the kernels of one block, {device}", measured)
    save("host", device, measured)
