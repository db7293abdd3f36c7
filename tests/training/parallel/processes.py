"""Starting processes that train together, as users and schedulers do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
WORKER = Path(__file__).with_name("worker.py")
# Nothing may take longer; a hang fails the test that waits for it.
LIMIT = 300.0


def start(*words: object, **changes: str) -> subprocess.Popen[str]:
    """Start a Python program in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **changes}
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def start_worker(processes: int, function: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a function of worker.py in one or more processes."""
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    return start(*(launcher if processes > 1 else ()), WORKER, function, *arguments)


def start_training(out: Path, *words: object, processes: int = 2) -> subprocess.Popen[str]:
    """Start `internimage train` on the processor."""
    shared = ("--processes", processes) if processes > 1 else ()
    return start("-m", "internimage", "train", "--out", out, "--device", "cpu", *shared, *words)


def finished(process: subprocess.Popen[str], code: int | None = 0, *, limit: float = LIMIT) -> str:
    """Wait for a program and return what it wrote; None takes any exit code but 0."""
    try:
        text, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        kill_all(process)
        pytest.fail(f"hangs: {process.communicate()[0]}")
    assert process.returncode == code if code is not None else process.returncode != 0, text
    return text


def kill_all(process: subprocess.Popen[str]) -> None:
    """Kill a program and its children as a crash of the machine would."""
    os.killpg(process.pid, 9)


def wait_until(is_so: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    """Wait until something is so while a program runs."""
    end = time.monotonic() + LIMIT
    while not is_so():
        if process.poll() is not None or time.monotonic() > end:
            kill_all(process)
            pytest.fail(f"never came to be so: {process.communicate()[0]}")
        time.sleep(0.05)
