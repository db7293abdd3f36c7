"""How long functions take and how much memory: the one tool of `internimage bench` and of the benchmarks.

Unlike `torch.utils.benchmark`, it runs the functions that are compared in turn, so that a change of the machine's mood
hits all of them, and keeps every round, which a 99th percentile needs.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one function in all rounds, sorted.

    Example:
        >>> Timing((1.0, 2.0, 6.0)).p50
        2.0
    """

    samples: tuple[float, ...]

    @property
    def p50(self) -> float:
        """Median in milliseconds."""
        return statistics.median(self.samples)

    @property
    def p99(self) -> float:
        """99th percentile in milliseconds: the smallest sample that is not below 99 % of them."""
        return self.samples[math.ceil(0.99 * len(self.samples)) - 1]

    @property
    def best(self) -> float:
        """Fastest round in milliseconds."""
        return self.samples[0]


def interleave(
    functions: Mapping[str, Callable[[], object]],
    *,
    device: torch.device | str = "cpu",
    seconds: float = 0.0,
    rounds: int = 5,
    warm_up: int = 2,
) -> dict[str, Timing]:
    """Run every function in turn and return the wall time of each call, work on the device included.

    Args:
        functions: what is compared, by name.
        device: where they compute.
        seconds: rounds begin until then.
        rounds: least number of rounds.
        warm_up: calls of each function that do not count.
    """
    for function in functions.values():
        for _ in range(warm_up):
            function()
    synchronize(device)
    samples: dict[str, list[float]] = {name: [] for name in functions}
    deadline = time.perf_counter() + seconds
    done = 0
    while done < rounds or time.perf_counter() < deadline:
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            synchronize(device)
            samples[name].append((time.perf_counter() - start) * 1e3)
        done += 1
    return {name: Timing(tuple(sorted(values))) for name, values in samples.items()}


def synchronize(device: torch.device | str) -> None:
    """Wait until the device has done its work."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()


def reset_peak(device: torch.device | str) -> None:
    """Start the measurement of peak memory afresh, where the system can."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # Linux only; elsewhere the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mib(device: torch.device | str) -> float | None:
    """Peak memory since `reset_peak` in MiB: allocated on a GPU, resident on a CPU; None where it is not known."""
    kind, status = torch.device(device).type, Path("/proc/self/status")
    if kind == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if kind != "cpu" or not status.exists():
        return None
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**10
