"""Trains in children of this process that kill themselves (SIGKILL) at a given step or in the middle of a write.

python killed_runs.py PLAN: a JSON file with "recipe", "overrides", "data" and "runs"; each run has a folder "out"
and a list "kills" of ["step", n] and ["write", n]. A run begins, is killed, goes on, ..., and then goes on to its end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from internimage import files
from internimage.training import train
from internimage.training.loop import Trainer


def kill_at_step(number: int) -> None:
    """Kill this process after its own step of this number."""
    original, done = Trainer._train_step, []

    def step(self: Trainer, micro_batches: Any) -> None:
        original(self, micro_batches)
        done.append(1)
        if len(done) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    Trainer._train_step = step  # type: ignore[method-assign]


def kill_in_write(number: int) -> None:
    """Kill this process in its write of this number, when half of the file is on the disk."""
    original, done = files._flush, []

    def flush(path: Path) -> None:
        if path.suffix == ".tmp":
            done.append(path)
            if len(done) == number:
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
        original(path)

    files._flush = flush


def run_once(plan: dict[str, Any], out: Path, kill: list[Any] | None) -> int:
    """Train in a child; return the signal that ended it, 0 where it came to its end."""
    child = os.fork()
    if child == 0:
        if kill is not None:
            {"step": kill_at_step, "write": kill_in_write}[kill[0]](kill[1])
        resume = (out / "state.pt").exists()
        train(plan["recipe"], data=plan["data"], out=out, resume=resume, overrides=plan["overrides"], progress=False)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        if os.WEXITSTATUS(status):
            raise SystemExit(f"the run in {out} failed")
        return 0
    return os.WTERMSIG(status)


def main() -> None:
    """Carry out a plan; write how many kills there were, and the seconds, to stdout."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    started, kills = time.monotonic(), 0
    for run in plan["runs"]:
        for kill in [*run["kills"], None]:
            ended_by = run_once(plan, Path(run["out"]), kill)
            if kill is None and ended_by:
                raise SystemExit(f"signal {ended_by} ended the run in {run['out']}")
            kills += ended_by == signal.SIGKILL
    sys.stdout.write(json.dumps({"kills": kills, "seconds": time.monotonic() - started}))


if __name__ == "__main__":
    main()
