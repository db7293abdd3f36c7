"""The processors of this machine: how many there are to use, and whether other programs keep them busy."""

from __future__ import annotations

import os
import sys
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
# A user who has set one of these has decided how threads wait.
_DECIDED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
BUSY_SHARE = 0.5


def usable_processors() -> int:
    """Return how many processors this process may use, by its affinity and the quota of its container.

    Example:
        >>> 1 <= usable_processors() <= (os.cpu_count() or 1)
        True
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _container_quota()
    return count if quota is None else max(1, min(count, round(quota)))


def bounded_workers(asked: int) -> int:
    """Return the number of reading processes: `asked`, or as many as there are processors if those are fewer."""
    return min(asked, usable_processors())


def load() -> float | None:
    """Return how many processes have wanted a processor in the last minute, None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows; a system that forbids it
        return None


def let_threads_sleep() -> bool:
    """Let threads that wait for their team sleep instead of spin, if other programs want the processors.

    A team of threads that spins takes the processor from the very thread that it waits for: with two threads on two
    busy processors a training step of a small model took 18 times as long as with one, and 1.5 times when they slept.
    Must be called before torch is imported; a choice of the user in the environment is left alone.

    Returns:
        Whether the environment of this process was changed.
    """
    wanted = load()
    if wanted is None or wanted < BUSY_SHARE * usable_processors() or "torch" in sys.modules:
        return False
    if any(name in os.environ for name in _DECIDED):
        return False
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # LLVM's and Intel's OpenMP
    os.environ["GOMP_SPINCOUNT"] = "0"  # GNU's, which torch brings along on Linux
    return True


def _container_quota() -> float | None:
    """Return the processors that a container may keep busy, None without a limit or outside of Linux."""
    try:
        limit, period = QUOTA.read_text(encoding="ascii").split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None
