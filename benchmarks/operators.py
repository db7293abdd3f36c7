"""The operators alone: our kernels beside the grid-sample form, torchvision's deformable convolution and deformops.

Run: `python -m benchmarks.run --only operators [--device cuda]`. Every case is first compared with the reference in
float64. Bytes count each input and output once (three times with the backward pass), FLOPs the multiply-adds of the
four corners (three times, too). The roofline is the longer of both at what a plain copy and a float32 matrix product
reach in this run; its share of our time is 1 at the limit of the machine. On a GPU our times and torchvision's are
those of replayed graphs, without the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from benchmarks.graphs import replayed
from benchmarks.record import bar_plot, print_table, save
from internimage.cli.measuring.timing import Timing, interleave
from internimage.ops import dcnv3, dcnv4, ms_deform_attn
from internimage.ops.deform_attn import reference as attention_reference
from internimage.ops.deform_attn.levels import Levels
from internimage.ops.deform_conv_v3 import reference as dcnv3_reference
from internimage.ops.deform_conv_v4 import packed_channels
from internimage.ops.deform_conv_v4 import reference as dcnv4_reference
from internimage.ops.runtime.allocator import keep_freed_memory
from internimage.ops.sampling import Window

TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
Operator = Callable[..., Tensor]
PEERS = ("torchvision", "deformops")
REPLAYED = ("ours", "torchvision")  # on a GPU, from graphs; the others copy from the host
ROUND_MS = 20.0
FLOPS_PER_SAMPLE = 8  # four corners, a multiplication and an addition each


@dataclass(frozen=True)
class Case:
    """One operator at one shape.

    Args:
        operator: its name.
        shape: in words.
        call: the operator on `inputs`; takes `backend`.
        grid_sample: the same through `grid_sample` and autograd.
        inputs: its tensors.
        samples: points times channels, each of which reads four corners.
        peers: other packages that compute the same sum, by name.
    """

    operator: str
    shape: str
    call: Operator
    grid_sample: Operator
    inputs: tuple[Tensor, ...]
    samples: int
    peers: Mapping[str, Operator] = field(default_factory=dict)

    def to(self, device: str, dtype: torch.dtype) -> Case:
        """The case with its inputs on `device` in `dtype`."""
        moved = tuple(tensor.to(device, dtype) for tensor in self.inputs)
        has_kernels = {"torchvision": dtype != torch.bfloat16}
        peers = {name: peer for name, peer in self.peers.items() if has_kernels.get(name, True)}
        return replace(self, inputs=moved, peers=peers)

    @property
    def flops(self) -> int:
        """Floating point operations of the forward pass."""
        return FLOPS_PER_SAMPLE * self.samples


def window_cases(shapes: tuple[tuple[int, int, int, int, int], ...]) -> Iterator[Case]:
    """dcnv3 and dcnv4, 3x3, at (batch, height, width, groups, channels of a group)."""
    for n, h, w, groups, width in shapes:
        text = f"({n}, {h}, {w}, {groups}x{width})"
        x, offset = torch.randn(n, h, w, groups * width), torch.randn(n, h, w, groups * 18)
        mask = torch.randn(n, h, w, groups, 9).softmax(-1).flatten(3)
        samples = mask.numel() * width
        peers = {"torchvision": partial(torchvision_window, groups=groups)}
        window = Window((3, 3), (1, 1), (1, 1), (1, 1), groups, 1.0, remove_center=False, softmax=False)
        plain = partial(dcnv3_reference.forward, window=window)
        yield Case("dcnv3", text, partial(dcnv3, groups=groups), plain, (x, offset, mask), samples, peers)
        packed = torch.randn(n, h, w, packed_channels(groups, 9))
        plain = partial(dcnv4_reference.forward, window=window)
        yield Case("dcnv4", text, partial(dcnv4, groups=groups), plain, (x, packed), samples)


def attention_cases(queries: tuple[int, ...], batch: int = 1) -> Iterator[Case]:
    """ms_deform_attn over four levels of a 800 x 1066 image, 8 heads of 32, 4 points; 0 queries: one a pixel."""
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
        levels = Levels(tuple(side for size in shapes for side in size), normalized=True, softmax=False)
        plain = partial(attention_reference.forward, levels=levels)
        text, inputs = f"({batch}, {count} queries, 4 levels, 8x32)", (value, locations, weights)
        yield Case("ms_deform_attn", text, call, plain, inputs, weights.numel() * 32, deformops_attention(shapes))


def attend(value: Tensor, locations: Tensor, weights: Tensor, *, shapes: Any, backend: str = "auto") -> Tensor:
    """`ms_deform_attn` with the tensors first."""
    return ms_deform_attn(value, shapes, locations, weights, backend=backend)


def deformops_attention(shapes: tuple[tuple[int, int], ...]) -> dict[str, Operator]:
    """The operator of the package deformops (Python 3.12 and later), where it is installed."""
    try:
        from deformops.registry import msda  # pyright: ignore[reportMissingImports]  # no dependency, a peer
    except ImportError:
        return {}
    sizes = torch.tensor(shapes)
    starts = torch.cat([sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]])

    def call(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return msda(value, sizes.to(value.device), starts.to(value.device), locations, weights)

    return {"deformops": call}


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
    for name, peer in case.peers.items():
        torch.testing.assert_close(
            peer(*case.inputs).double(), want.detach(), rtol=0.05, atol=0.05, msg=f"{name} differs"
        )
    return max(errors)


class Ceilings(NamedTuple):
    """What the machine reaches in this run: bytes copied and floating point operations, in 10^9 a second."""

    gb_per_s: float
    gflops: float


def copy_bandwidth(device: str) -> float:
    """GB/s of a plain copy of 256 MiB, read and write counted."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    best = interleave({"copy": lambda: target.copy_(source)}, device=device, seconds=1.0)["copy"].best
    return 2 * source.numel() * 4 / best / 1e6


def matmul_gflops(device: str) -> float:
    """GFLOP/s of a product of float32 matrices of 2048."""
    a = torch.ones(2048, 2048, device=device)
    best = interleave({"matmul": lambda: a @ a}, device=device, seconds=1.0)["matmul"].best
    return 2 * 2048**3 / best / 1e6


def repeated(function: Callable[[], object], device: str, name: str) -> tuple[Callable[[], object], int]:
    """`function` as often as fills about 20 ms, and that number.

    Short calls are timed well that way, and caches hold what the calls before left there, not what another function of
    the round did, as in the blocks of `torch.utils.benchmark`.
    """
    once = interleave({"f": function}, device=device, seconds=0.05)["f"].best
    times = max(1, min(200, int(ROUND_MS / once)))
    if device == "cuda" and name in REPLAYED:
        return replayed(function, times), times

    def run() -> None:
        for _ in range(times):
            function()

    return run, times


def functions(case: Case, with_backward: bool) -> dict[str, Callable[[], object]]:
    """What is timed: ours, the grid-sample form, other packages."""
    calls: dict[str, Operator] = {"ours": case.call, "reference": case.grid_sample}
    calls |= case.peers
    if not with_backward:
        return {name: partial(call, *case.inputs) for name, call in calls.items()}
    leaves = [tensor.detach().requires_grad_() for tensor in case.inputs]
    upstream = torch.randn_like(case.call(*case.inputs))

    def both(call: Callable[..., Tensor]) -> object:
        return torch.autograd.grad(call(*leaves), leaves, upstream)

    return {name: partial(both, call) for name, call in calls.items()}


def measure(
    case: Case, dtype: torch.dtype, device: str, seconds: float, ceilings: Ceilings
) -> Iterator[dict[str, Any]]:
    """One line of the table for forward, one for forward and backward."""
    error = check(case, dtype)
    output = case.call(*case.inputs)
    moved = sum(t.numel() * t.element_size() for t in (*case.inputs, output))
    for direction, passes in (("forward", 1), ("forward+backward", 3)):
        prepared = {name: repeated(f, device, name) for name, f in functions(case, passes > 1).items()}
        timings = interleave({name: f for name, (f, _) in prepared.items()}, device=device, seconds=seconds)
        p50 = {name: _each(timings[name], times) for name, (_, times) in prepared.items()}
        megabytes, megaflops = passes * moved / 1e6, passes * case.flops / 1e6
        yield {
            "operator": case.operator,
            "shape": case.shape,
            "dtype": str(dtype).removeprefix("torch."),
            "what": direction,
            "p50_ms": p50["ours"],
            "reference_ms": p50["reference"],
            "over_reference": p50["reference"] / p50["ours"],
            **{f"{peer}_ms": p50.get(peer) for peer in PEERS},
            "megabytes": megabytes,
            "megaflops": megaflops,
            "bandwidth_share": megabytes / ceilings.gb_per_s / p50["ours"],
            "roofline_share": max(megabytes / ceilings.gb_per_s, megaflops / ceilings.gflops) / p50["ours"],
            "error": error,
        }


def _each(timing: Timing, times: int) -> float:
    return timing.p50 / times


def cases(device: str) -> list[Case]:
    """The shapes of the targets, and on a GPU the stages of T, a detector's, and wider ones."""
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
    stages = [(64, 56 >> i, 56 >> i, 4 << i, 16) for i in range(4)]
    detection = [(1, 200 >> i, 320 >> i, 4 << i, 16) for i in range(3)]
    return [*window_cases((*stages, *detection, (64, 56, 56, 10, 16), (8, 80, 80, 10, 32))), *attention_cases((900, 0))]


def run(device: str, *, seconds: float = 3.0, dtypes: Sequence[torch.dtype] = ()) -> None:
    """Check, measure, print, save and plot; a run that is stopped keeps what it has measured."""
    keep_freed_memory()  # as every model of the package does
    ceilings = Ceilings(copy_bandwidth(device), matmul_gflops(device))
    usual = (torch.float32, torch.bfloat16) if device == "cpu" else (torch.float32, torch.bfloat16, torch.float16)
    rows: list[dict[str, Any]] = []
    try:
        for case in cases(device):
            for dtype in dtypes or usual:
                rows += measure(case.to(device, dtype), dtype, device, seconds, ceilings)
    finally:
        _report(rows, device, ceilings)


def _report(rows: list[dict[str, Any]], device: str, ceilings: Ceilings) -> None:
    ceiling = f"a copy reaches {ceilings.gb_per_s:.0f} GB/s, a matrix product {ceilings.gflops:.0f} GFLOP/s"
    print_table(f"operators on {device}; {ceiling}", rows)
    save("operators", device, rows, copy_gb_per_s=ceilings.gb_per_s, matmul_gflops=ceilings.gflops)
    shown = [row for row in rows if row["dtype"] == rows[0]["dtype"]]
    labels = list(dict.fromkeys(f"{row['operator']} {row['shape']}" for row in shown))
    series = {
        what: [row["over_reference"] for row in shown if row["what"] == what]
        for what in ("forward", "forward+backward")
    }
    dtype = shown[0]["dtype"] if shown else "nothing"
    title = f"Times faster than the grid-sample form, {dtype}, {device}"
    bar_plot("operators", device, title, labels, series, "time of the grid-sample form / ours (medians)")
