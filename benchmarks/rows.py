"""What stands between the linear layers of a block: our kernels beside torch's operators and a plain copy.

Run: `python -m benchmarks.run --only rows [--device cuda]`. Rows and channels are those of the four levels of
InternImage-T and of the first of InternImage-S at 224 pixels, batch 64 on a GPU and 1 on a CPU. Every step is first
compared with torch's in float64. Bytes count each input and output once; the share of the copy is what the step would
take at the speed of a copy of one map, over what it takes. On a GPU times are those of replayed graphs, without the
host, and the backward pass is measured too; on a CPU there are kernels for inference alone, which work in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.graphs import replayed
from benchmarks.record import bar_plot, print_table, save
from internimage.cli.measuring.timing import interleave
from internimage.ops.fused import Residual, add_branch, add_shortcut_, gelu_, layer_norm

PIXELS, CHANNELS = (3136, 784, 196, 49, 3136), (64, 128, 256, 512, 80)
EPS = 1e-6
CALLS = 20  # in a graph
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
Function = Callable[..., Any]


@dataclass(frozen=True)
class Step:
    """One step on rows.

    Args:
        name: in words.
        maps: how many maps it reads and writes.
        inputs: how many of these it reads.
        torch: by torch's operators; takes the maps and five vectors.
        trained: ours with gradients.
        inferred: ours in place, the first map is overwritten; None where there is none.
    """

    name: str
    maps: int
    inputs: int
    torch: Function
    trained: Function
    inferred: Function | None = None


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, EPS)


def _sum_and_norm(y: Tensor, shortcut: Tensor, *p: Tensor) -> tuple[Tensor, Tensor]:
    total = shortcut + y
    return total, _norm(total, *p[:2])


def _in_place(y: Tensor, shortcut: Tensor, residual: Residual) -> Any:
    normed = add_shortcut_(y, shortcut, residual)
    return y if normed is None else (y, normed)


STEPS = (
    Step("norm", 2, 1, lambda x, *p: _norm(x, *p[:2]), lambda x, *p: layer_norm(x, *p[:2], EPS)),
    Step(
        *("norm, GELU", 2, 1),
        lambda x, *p: F.gelu(_norm(x, *p[:2])),
        lambda x, *p: layer_norm(x, *p[:2], EPS, gelu=True),
    ),
    Step("GELU", 2, 1, lambda x, *p: F.gelu(x), lambda x, *p: F.gelu(x), lambda x, *p: gelu_(x)),
    Step(
        *("sum, norm", 4, 2),
        _sum_and_norm,
        lambda y, shortcut, *p: add_branch(shortcut, y, Residual(None, None, None, *p[:2], EPS)),
        lambda y, shortcut, *p: _in_place(y, shortcut, Residual(None, None, None, *p[:2], EPS)),
    ),
    Step(
        *("norm, scale, sum", 3, 2),
        lambda y, shortcut, *p: shortcut + p[0] * _norm(y, *p[1:3]),
        lambda y, shortcut, *p: add_branch(shortcut, y, Residual(*p[:3], None, None, EPS))[0],
        lambda y, shortcut, *p: _in_place(y, shortcut, Residual(*p[:3], None, None, EPS)),
    ),
)


def repeated(function: Function, device: str) -> tuple[Callable[[], object], int]:
    """What to time, and how many calls that is: on a GPU a graph of several."""
    return (replayed(function, CALLS), CALLS) if device == "cuda" else (function, 1)


def _with_gradients(function: Function, values: list[Tensor]) -> Callable[[], object]:
    """Forward and backward pass."""
    leaves = [value.clone().requires_grad_() for value in values]
    upstream: list[Tensor] = []

    def run() -> object:
        out = function(*leaves)
        outputs = out if isinstance(out, tuple) else (out,)
        outputs = [t for t in outputs if t is not None]
        upstream[:] = upstream or [torch.randn_like(t) for t in outputs]
        return torch.autograd.grad(outputs, leaves, upstream, allow_unused=True)

    return run


def measure(step: Step, rows: int, channels: int, device: str, dtype: torch.dtype, seconds: float) -> dict[str, Any]:
    """Check one step and time it in microseconds."""
    maps = [torch.randn(rows, channels, device=device, dtype=dtype) for _ in range(step.inputs)]
    vectors = [torch.randn(channels, device=device, dtype=dtype) for _ in range(5)]
    ours = step.trained if step.inferred is None or device == "cuda" else step.inferred
    with torch.no_grad():
        want = step.torch(*(t.double() for t in (*maps, *vectors)))
        got = ours(*(t.clone() for t in maps), *vectors)
        for a, b in zip(*((v,) if isinstance(v, Tensor) else v for v in (want, got)), strict=False):
            error = float((a - b.double()).norm() / a.norm())
            if not error <= TOLERANCE[dtype]:
                raise SystemExit(f"correctness check failed: {step.name}, {channels} channels differ by {error:.2e}")
        functions = {
            "copy": lambda: maps[0].clone(),
            "torch": lambda: step.torch(*maps, *vectors),
            "ours": lambda: ours(*maps, *vectors),
        }
        timed = {name: repeated(function, device) for name, function in functions.items()}
    if device == "cuda":
        for name, function in (("torch_both", step.torch), ("ours_both", step.trained)):
            timed[name] = repeated(_with_gradients(function, [*maps, *vectors]), device)
    timings = interleave({name: run for name, (run, _) in timed.items()}, device=device, seconds=seconds)
    us = {name: 1e3 * timings[name].p50 / calls for name, (_, calls) in timed.items()}
    return {
        "step": step.name,
        "rows": rows,
        "channels": channels,
        "dtype": str(dtype).removeprefix("torch."),
        **{f"{name}_us": value for name, value in us.items()},
        "times_torch": us["torch"] / us["ours"],
        "share_of_copy": us["copy"] * step.maps / 2 / us["ours"],
    }


def run(device: str, *, seconds: float = 0.2, dtypes: tuple[torch.dtype, ...] = ()) -> None:
    """Check, measure, print, save and plot."""
    batch = 64 if device == "cuda" else 1
    chosen = dtypes or ((torch.float32, torch.float16) if device == "cuda" else (torch.float32, torch.bfloat16))
    steps = [step for step in STEPS if device == "cuda" or step.inferred is not None]
    rows: list[dict[str, Any]] = []
    try:
        for dtype in chosen:
            for pixels, channels in zip(PIXELS, CHANNELS, strict=True):
                rows += [measure(step, batch * pixels, channels, device, dtype, seconds) for step in steps]
    finally:
        print_table(f"steps on rows, {device}", rows)
        save("rows", device, rows, notes=__doc__)
    shown = [row for row in rows if row["dtype"] == rows[0]["dtype"]]
    bar_plot(
        "rows",
        device,
        f"Steps on rows, {rows[0]['dtype']}, {device}",
        [f"{row['step']}, {row['channels']}" for row in shown],
        {name: [row[f"{name}_us"] for row in shown] for name in ("copy", "torch", "ours")},
        "microseconds (median)",
    )
