"""What the first calls cost: every operator and model in a process of its own, with an empty cache of kernels.

A second call shows what stays; a call at another size and the first backward pass show what is compiled again.

Run: `python -m benchmarks.run --only first_calls [--device cuda]`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.models import build
from benchmarks.operators import attention_cases, window_cases
from benchmarks.record import print_table, save
from internimage.cli.measuring.timing import synchronize

OPERATORS = ("dcnv3", "dcnv4", "ms_deform_attn")
MODELS = ("internimage_t", "flash_internimage_t")
WINDOWS = ((2, 56, 56, 4, 16), (2, 53, 47, 4, 16))
QUERIES = (900, 871)
SIDES = (224, 232)
LIMIT_S = 60.0  # of one process
PROGRAM = "import json, sys; from benchmarks import first_calls as f; print(json.dumps(f.first_calls(*sys.argv[1:])))"


def first_calls(name: str, device: str) -> dict[str, float]:
    """Seconds of the calls of one operator or model in this process."""
    dtype = torch.float16 if device == "cuda" else torch.float32
    first, other = _model_calls(name, device, dtype) if name in MODELS else _operator_calls(name, device, dtype)
    torch.zeros(1, device=device)  # the device itself is ready
    outputs: list[torch.Tensor] = []
    found = {
        "first_s": _seconds(lambda: outputs.append(first()), device),
        "second_s": _seconds(first, device),
        "other_size_s": _seconds(lambda: outputs.append(other()), device),
    }
    for label, output in zip(("first_backward_s", "other_size_backward_s"), outputs, strict=True):
        found[label] = _seconds(lambda output=output: output.float().sum().backward(), device)
    return found


def _operator_calls(name: str, device: str, dtype: torch.dtype) -> list[Callable[[], torch.Tensor]]:
    cases = [case for case in (*window_cases(WINDOWS), *attention_cases(QUERIES)) if case.operator == name]
    calls: list[Callable[[], torch.Tensor]] = []
    for case in cases:
        inputs = [tensor.requires_grad_() for tensor in case.to(device, dtype).inputs]
        calls.append(lambda case=case, inputs=inputs: case.call(*inputs))
    return calls


def _model_calls(name: str, device: str, dtype: torch.dtype) -> list[Callable[[], torch.Tensor]]:
    model = build(name, device, dtype)
    batches = [torch.randn(1, 3, side, side, device=device, dtype=dtype) for side in SIDES]
    return [lambda pixels=pixels: model(pixels).maps[-1] for pixels in batches]


def _seconds(function: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def run(device: str, *, seconds: float = LIMIT_S) -> None:
    """Measure, print and save; a process that takes longer than `seconds` is stopped and its row stays empty."""
    rows: list[dict[str, Any]] = []
    try:
        for name in (*OPERATORS, *MODELS):
            rows.append({"what": name, **_in_process(name, device, seconds)})
    finally:
        print_table(f"first calls on {device}, seconds", rows)
        save("first_calls", device, rows, limit_s=seconds, notes=__doc__)


def _in_process(name: str, device: str, seconds: float) -> dict[str, float | None]:
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "TRITON_CACHE_DIR": cache}
        try:
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, name, device],
                env=environment, capture_output=True, text=True, timeout=seconds, check=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            print(f"skipped {name}: its first calls took more than {seconds:.0f} s")
            return dict.fromkeys(("first_s", "second_s", "other_size_s", "first_backward_s", "other_size_backward_s"))
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"the first call of {name} failed:\n{error.stderr[-2000:]}") from error
    return json.loads(done.stdout.splitlines()[-1])
