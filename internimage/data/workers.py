"""How many processes read: as many as asked for, but no more than there are processors to run them."""

from __future__ import annotations

import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")


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


def _container_quota() -> float | None:
    """Return the processors that a container may keep busy, None without a limit or outside of Linux."""
    try:
        limit, period = QUOTA.read_text(encoding="ascii").split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None
