"""The operators alone: our kernels beside the grid-sample form and torchvision's deformable convolution.

Run: `python -m benchmarks.run --only operators [--device cuda]`. Every case is first compared with the reference in
float64. The share of bandwidth counts each input and output once and divides by what a plain copy reaches in this run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from benchmarks.record import bar_plot, print_table, save
from benchmarks.timing import Timing, interleave
from internimage.ops import dcnv3, dcnv4, ms_deform_attn
from internimage.ops.deform_conv_v4 import packed_channels
from internimage.ops.native.allocator import keep_freed_memory

TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
Operator = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """One operator at one shape; `peer` computes the same sum with torchvision, where that exists."""

    operator: str
    shape: str
    call: Operator
    inputs: tuple[Tensor, ...]
    peer: Callable[..., Tensor] | None = None

    def to(self, device: str, dtype: torch.dtype) -> Case:
        """The case with its inputs on `device` in `dtype`."""
        moved = tuple(tensor.to(device, dtype) for tensor in self.inputs)
        peer = None if dtype == torch.bfloat16 else self.peer  # torchvision has no kernel for it
        return Case(self.operator, self.shape, self.call, moved, peer)


def window_cases(shapes: tuple[tuple[int, int, int, int, int], ...]) -> Iterator[Case]:
    """dcnv3 and dcnv4, 3x3, at (batch, height, width, groups, channels of a group)."""
    for n, h, w, groups, width in shapes:
        text = f"({n}, {h}, {w}, {groups}x{width})"
        x, offset = torch.randn(n, h, w, groups * width), torch.randn(n, h, w, groups * 18)
        mask = torch.randn(n, h, w, groups, 9).softmax(-1).flatten(3)
        peer = partial(torchvision_window, groups=groups)
        yield Case("dcnv3", text, partial(dcnv3, groups=groups), (x, offset, mask), peer)
        packed = torch.randn(n, h, w, packed_channels(groups, 9))
        yield Case("dcnv4", text, partial(dcnv4, groups=groups), (x, packed))


def attention_cases(queries: tuple[int, ...], batch: int = 1) -> Iterator[Case]:
    """ms_deform_attn over four levels of a 800 x 1066 picture, 8 heads of 32, 4 points; 0 queries: one a pixel."""
    shapes = ((100, 134), (50, 67), (25, 34), (13, 17))
    pixels = sum(h * w for h, w in shapes)
    for asked in queries:
        count = asked or pixels
        value = torch.randn(batch, pixels, 8, 32)
        near = torch.rand(batch, count, 1, 1, 1, 2)
        if not asked:  # an encoder's queries are the pixels in order and look around themselves
            near = torch.cat([centers(h, w) for h, w in shapes]).view(1, pixels, 1, 1, 1, 2)
        sizes = torch.tensor(shapes).flip(-1)[:, None]
        locations = near + 2.0 * torch.randn(batch, count, 8, 4, 4, 2) / sizes
        weights = torch.randn(batch, count, 8, 16).softmax(-1).unflatten(-1, (4, 4))
        call = partial(attend, shapes=shapes)
        yield Case("ms_deform_attn", f"({batch}, {count} queries, 4 levels, 8x32)", call, (value, locations, weights))


def attend(value: Tensor, locations: Tensor, weights: Tensor, *, shapes: Any, backend: str = "auto") -> Tensor:
    """`ms_deform_attn` with the tensors first."""
    return ms_deform_attn(value, shapes, locations, weights, backend=backend)


def centers(height: int, width: int) -> Tensor:
    """Pixel centers (H*W, 2) as (x, y) in 0..1."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack((x / width, y / height), dim=-1).view(-1, 2)


def torchvision_window(x: Tensor, offset: Tensor, mask: Tensor, *, groups: int) -> Tensor:
    """dcnv3 through `deform_conv2d` with depth-wise weights of one; its points run by rows, its pairs are (y, x)."""
    channels = x.shape[3]
    shifts = offset.unflatten(-1, (groups, 3, 3, 2)).transpose(4, 5).flip(-1).flatten(3).permute(0, 3, 1, 2)
    shares = mask.unflatten(-1, (groups, 3, 3)).transpose(4, 5).flatten(3).permute(0, 3, 1, 2)
    ones = x.new_ones(channels, 1, 3, 3)
    return deform_conv2d(x.permute(0, 3, 1, 2), shifts, ones, padding=1, mask=shares).permute(0, 2, 3, 1)


def check(case: Case, dtype: torch.dtype) -> float:
    """Largest difference from the float64 reference, output and gradients, in units of each one's scale."""
    exact = [tensor.double().requires_grad_() for tensor in case.inputs]
    given = [tensor.detach().requires_grad_() for tensor in case.inputs]
    want, got = case.call(*exact, backend="reference"), case.call(*given)
    upstream = torch.randn_like(got)
    wanted = [want, *torch.autograd.grad(want, exact, upstream.double())]
    gotten = [got, *torch.autograd.grad(got, given, upstream)]
    errors = []
    for index, (a, b) in enumerate(zip(wanted, gotten, strict=True)):
        a, b = a.detach(), b.detach().double()
        if (
            index == 2
        ):  # positions: where rounding moves a point over a pixel line its slope jumps, so compare the means
            errors.append(float((a - b).abs().mean() / a.abs().mean()))
        else:
            errors.append(float((a - b).abs().max() / a.abs().max().clamp_min(1.0)))
    if not max(errors) <= TOLERANCE[dtype]:
        raise SystemExit(f"correctness check failed: {case.operator} {case.shape} {dtype} differs by {max(errors):.2e}")
    return max(errors)


def copy_bandwidth(device: str) -> float:
    """GB/s of a plain copy of 256 MiB, read and write counted."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    best = interleave({"copy": lambda: target.copy_(source)}, device=device, seconds=1.0)["copy"].best
    return 2 * source.numel() * 4 / best / 1e6


def repeated(function: Callable[[], object], device: str) -> tuple[Callable[[], object], int]:
    """`function` as often as fills about 3 ms, so that short calls are timed well, and that number."""
    once = interleave({"f": function}, device=device, seconds=0.05)["f"].best
    times = max(1, min(200, int(3.0 / once)))

    def run() -> None:
        for _ in range(times):
            function()

    return run, times


def functions(case: Case, with_backward: bool) -> dict[str, Callable[[], object]]:
    """What is timed: ours, the grid-sample form, torchvision."""
    calls: dict[str, Callable[..., Tensor]] = {"ours": case.call, "reference": partial(case.call, backend="reference")}
    if case.peer:
        calls["torchvision"] = case.peer
    if not with_backward:
        return {name: partial(call, *case.inputs) for name, call in calls.items()}
    leaves = [tensor.detach().requires_grad_() for tensor in case.inputs]
    upstream = torch.randn_like(case.call(*case.inputs))

    def both(call: Callable[..., Tensor]) -> object:
        return torch.autograd.grad(call(*leaves), leaves, upstream)

    return {name: partial(both, call) for name, call in calls.items()}


def measure(case: Case, dtype: torch.dtype, device: str, seconds: float, ceiling: float) -> Iterator[dict[str, Any]]:
    """One line of the table for forward, one for forward and backward."""
    error = check(case, dtype)
    output = case.call(*case.inputs)
    moved = sum(t.numel() * t.element_size() for t in (*case.inputs, output))
    for direction, passes in (("forward", 1), ("forward+backward", 3)):
        prepared = {name: repeated(f, device) for name, f in functions(case, passes > 1).items()}
        timings = interleave({name: f for name, (f, _) in prepared.items()}, device=device, seconds=seconds)
        p50 = {name: _each(timings[name], times) for name, (_, times) in prepared.items()}
        yield {
            "operator": case.operator,
            "shape": case.shape,
            "dtype": str(dtype).removeprefix("torch."),
            "what": direction,
            "p50_ms": p50["ours"],
            "reference_ms": p50["reference"],
            "over_reference": p50["reference"] / p50["ours"],
            "torchvision_ms": p50.get("torchvision", float("nan")),
            "bandwidth_share": passes * moved / p50["ours"] / 1e6 / ceiling,
            "error": error,
        }


def _each(timing: Timing, times: int) -> float:
    return timing.p50 / times


def cases(device: str) -> list[Case]:
    """The shapes of the targets, and on a GPU the stages of T, B and L and a detector's."""
    torch.manual_seed(0)
    if device == "cpu":
        shapes = (
            (1, 14, 14, 16, 16),
            (8, 14, 14, 16, 16),
            (1, 56, 56, 4, 16),
            (8, 56, 56, 4, 16),
            (1, 200, 200, 10, 16),
        )
        return [*window_cases(shapes), *attention_cases((900, 0))]
    stages = [(64, 56 >> i, 56 >> i, groups << i, 16) for groups in (4, 7, 10) for i in range(4)]
    detection = [(1, 200 >> i, 320 >> i, 4 << i, 16) for i in range(4)]
    return [*window_cases((*stages, *detection, (1, 200, 200, 10, 16))), *attention_cases((900, 0), batch=2)]


def run(device: str, *, seconds: float = 3.0) -> None:
    """Check, measure, print, save and plot."""
    keep_freed_memory()  # as every model of the package does
    ceiling = copy_bandwidth(device)
    dtypes = (torch.float32, torch.bfloat16) if device == "cpu" else (torch.float32, torch.bfloat16, torch.float16)
    rows = []
    for case in cases(device):
        for dtype in dtypes:
            rows += measure(case.to(device, dtype), dtype, device, seconds, ceiling)
    print_table(f"operators on {device}; a copy reaches {ceiling:.0f} GB/s", rows)
    save("operators", device, rows, copy_gb_per_s=ceiling)
    shown = [row for row in rows if row["dtype"] == "float32"]
    labels = list(dict.fromkeys(f"{row['operator']} {row['shape']}" for row in shown))
    series = {
        what: [row["over_reference"] for row in shown if row["what"] == what]
        for what in ("forward", "forward+backward")
    }
    title = f"Times faster than the grid-sample form, float32, {device}"
    bar_plot("operators", device, title, labels, series, "time of the grid-sample form / ours (medians)")
