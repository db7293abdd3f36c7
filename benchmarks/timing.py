"""Time several functions fairly: interleaved rounds, so that a change of the machine's mood hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one function over all rounds, sorted."""

    samples: tuple[float, ...]

    @property
    def p50(self) -> float:
        """Median in milliseconds."""
        return self.samples[len(self.samples) // 2]

    @property
    def p99(self) -> float:
        """99th percentile in milliseconds."""
        return self.samples[min(len(self.samples) - 1, int(len(self.samples) * 0.99))]

    @property
    def best(self) -> float:
        """Fastest round in milliseconds."""
        return self.samples[0]


def interleave(
    functions: Mapping[str, Callable[[], object]], *, device: str = "cpu", seconds: float = 4.0, warmup: int = 2
) -> dict[str, Timing]:
    """Run every function in turn until `seconds` have passed (at least five rounds) and return their timings."""

    def once(function: Callable[[], object]) -> float:
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            function()
            end.record()
            torch.cuda.synchronize()
            return begin.elapsed_time(end)
        start = time.perf_counter()
        function()
        return (time.perf_counter() - start) * 1e3

    samples: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        for _ in range(warmup):
            once(function)
    deadline = time.perf_counter() + seconds
    rounds = 0
    while rounds < 5 or time.perf_counter() < deadline:
        for name, function in functions.items():
            samples[name].append(once(function))
        rounds += 1
    return {name: Timing(tuple(sorted(values))) for name, values in samples.items()}
