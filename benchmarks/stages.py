"""Where the time of a network goes: time by stage, the share of its matrix products, peak memory.

Stages are functions of modules that are wrapped while they are measured; a stage that calls another one is charged
only with the rest of its time.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from internimage.layers.fused import transformer
from internimage.layers.fused.packed_linear import PackedLinear

CPU_TIME = "CPU time"
# Settings of glibc with which every freed block of more than 128 KiB returns to the system.
FREE_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
# Modules (or other objects) with the name of the function, by stage.
Stages = Mapping[str, Sequence[tuple[Any, str]]]


def clock(device: str) -> str:
    """Say what is measured: one thread's own time does not count what other processes do on a shared machine."""
    return CPU_TIME if device == "cpu" and torch.get_num_threads() == 1 else "wall time"


class Stopwatch:
    """Exclusive milliseconds of each stage while functions are wrapped; stages inside of `closed` belong to it."""

    def __init__(self, stages: Stages, device: str, *, closed: str = "") -> None:
        self.stages = stages
        self.device = device
        self.closed = closed
        self._is_closed = False
        self.spent: dict[str, float] = {}
        self._stack: list[list[float]] = []

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Wrap the functions, and give the originals back at the end."""
        wrapped: list[tuple[Any, str, bool, Any]] = []
        for stage, places in self.stages.items():
            self.spent.setdefault(stage, 0.0)
            for owner, name in places:
                original, own = getattr(owner, name), name in vars(owner)
                wrapped.append((owner, name, own, original))
                setattr(owner, name, self._timed(stage, original))
        try:
            yield
        finally:
            for owner, name, own, original in reversed(wrapped):
                if own:
                    setattr(owner, name, original)
                else:
                    delattr(owner, name)

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if self._is_closed:
                return function(*args, **kwargs)
            self._stack.append([0.0])
            self._is_closed = stage == self.closed
            start = self.now()
            result = function(*args, **kwargs)
            took = self.now() - start
            self._is_closed = False
            [inner] = self._stack.pop()
            self.spent[stage] += took - inner
            if self._stack:
                self._stack[-1][0] += took
            return result

        return run

    def now(self) -> float:
        """Milliseconds of `clock`; waits for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return (time.process_time() if clock(self.device) == CPU_TIME else time.perf_counter()) * 1e3


@dataclass(frozen=True)
class Call:
    """One thing to measure: the function, its stages, and the model whose convolutions and linear layers count."""

    run: Callable[[], object]
    stages: Stages
    model: nn.Module


def stage_times(calls: Mapping[str, Call], *, device: str, seconds: float) -> dict[str, dict[str, float]]:
    """Run every call in turn, once for warming up and at least once after that.

    Args:
        calls: what to measure, by name.
        device: "cpu" or "cuda".
        seconds: rounds begin until then.

    Returns:
        Name to stage to milliseconds, of the fastest round of that call; "rest" is what no stage accounts for, "total"
        everything, "products" the convolutions and linear layers outside of the backbone and the neck.
    """
    best: dict[str, dict[str, float]] = {}
    deadline = time.perf_counter() + seconds
    rounds = 0
    while rounds < 2 or time.perf_counter() < deadline:
        for name, call in calls.items():
            spent = _once(call, device)
            if rounds and (name not in best or spent["total"] < best[name]["total"]):
                best[name] = spent
        rounds += 1
    return best


def _once(call: Call, device: str) -> dict[str, float]:
    layers = [m for m in call.model.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    trunk = [place for stage in ("backbone", "neck") for place in call.stages.get(stage, ())]
    fused = [(PackedLinear, "__call__"), (transformer, "packed_perceptron")]
    products: Stages = {"trunk": trunk, "products": [*((m, "forward") for m in layers), *fused]}
    watch, other = Stopwatch(call.stages, device), Stopwatch(products, device, closed="trunk")
    with watch.watch(), other.watch():
        start = watch.now()
        call.run()
        total = watch.now() - start
    rest = total - sum(watch.spent.values())
    return {**watch.spent, "rest": rest, "total": total, "products": other.spent["products"]}


def largest_activations(model: nn.Module, call: Callable[[], object]) -> int:
    """Return the largest bytes that go into and out of one layer at a time while `call` runs `model`."""
    largest = 0

    def size(values: Any) -> int:
        if isinstance(values, Tensor):
            return values.numel() * values.element_size()
        return sum(map(size, values)) if isinstance(values, list | tuple) else 0

    def see(_: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        largest = max(largest, size(inputs) + size(output))

    layers = [module for module in model.modules() if not list(module.children())]
    hooks = [layer.register_forward_hook(see) for layer in layers]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def parameter_bytes(model: nn.Module) -> int:
    """Return the bytes of parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def peak_bytes(make: Callable[..., Callable[[], object]], *args: Any, warm: tuple[Any, ...], threads: int) -> int:
    """Return the peak of resident memory that a model and its call add to a fresh process (Linux, glibc).

    The libraries and the code they generate are loaded before, by a small call. Freed memory goes back to the system at
    once in this process, so that only memory in use is counted; by default up to 62 MiB more may stay in the process.

    Args:
        make: importable function that builds the model and returns the call.
        args: of it.
        warm: arguments for the small call.
        threads: torch's threads there.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_peak_in_process, args=(sender, make, args, warm, threads))
    with patch.dict(os.environ, FREE_AT_ONCE):
        process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _peak_in_process(
    sender: Any, make: Callable[..., Callable[[], object]], args: tuple[Any, ...], warm: tuple[Any, ...], threads: int
) -> None:
    torch.set_num_threads(threads)
    with torch.inference_mode():
        make(*warm)()
        _trim()
        before = _status("VmRSS")
        call = make(*args)
        _trim()  # what building has freed is not the call's
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of building
        call()
    sender.send(_status("VmHWM") - before)


def _trim() -> None:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}; memory is measured on Linux only")
