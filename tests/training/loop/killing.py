"""Runs that are killed at chosen points and go on: killing.py FOLDER DATA PROCESSES POINTS writes what came of it.

A point is an operation on a file of the run folder: what opens it for writing, renames or removes it. A run is killed
before that (SIGKILL), or by what it writes next, at the 20,000th byte of a file (SIGXFSZ, which nobody catches). Each
run is a process forked from this one, which has loaded everything, so that it takes no time to start.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import torch

from internimage.checkpoints.run_folder import saved_states
from internimage.training import train
from internimage.training.state import load_state
from tests.training.conftest import TINY
from tests.training.runs import assert_same_state

BYTES = 20_000
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir"}
WHOLE_BATCH = 8  # of 24 images, so that two epochs have six steps; all of them are saved
SETTINGS = (
    *(*TINY, "model.weights=none", "model.start=recipe", "data.holdout=48", "schedule.epochs=2", "run.save_minutes=0"),
    "model.config.backbone.depths=1,1,1,1",
)


def start(data: Path, out: Path, *, processes: int, point: int = 0, is_within: bool = False) -> list[int]:
    """Start the processes of a run, or of one that goes on; the first of them is killed at a point, never at 0."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            if processes > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
            _run(data, out, point if rank == 0 else 0, is_within=is_within, batch=WHOLE_BATCH // processes)
        children.append(child)
    return children


def _run(data: Path, out: Path, point: int, *, is_within: bool, batch: int) -> None:
    """Be one of the processes of a run, and end with it."""
    count, known = 0, str(out)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in FILE_EVENTS or not str(arguments[0]).startswith(known):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        count += 1
        if count == point and is_within:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES, BYTES))
        elif count == point:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    try:
        has_state = bool(saved_states(out))
        overrides = () if has_state else (*SETTINGS, f"data.batch_size={batch}")
        recipe = None if has_state else "internimage_pico_fashion"
        train(recipe, data=data, out=out, resume=has_state, overrides=overrides, device="cpu", progress=False)
        out.with_suffix(".count").write_text(str(count), encoding="utf-8")
    finally:
        sys.stderr.flush()
        os._exit(0 if sys.exc_info()[0] is None else 1)


def wait(children: list[int]) -> list[int]:
    """Wait for the processes of a run, of which none survives another; return their exit codes or signals below 0."""
    codes = {}
    while len(codes) < len(children):
        child, status = os.wait()
        codes[child] = os.waitstatus_to_exitcode(status)
        if codes[child]:
            for other in set(children) - codes.keys():
                os.kill(other, signal.SIGKILL)
    return [codes[child] for child in children]


def main(folder: Path, data: Path, processes: int, points: int) -> None:
    """Write where each run was killed, by what, and from which step it went on."""
    torch.set_num_threads(1)
    whole = folder / "whole"
    assert wait(start(data, whole, processes=processes)) == [0] * processes
    total, found = int(whole.with_suffix(".count").read_text(encoding="utf-8")), []
    for index in range(points):
        out, point = folder / str(index), 1 + index * (total - 1) // max(points - 1, 1)
        code = wait(start(data, out, processes=processes, point=point, is_within=index % 2 == 1))[0]
        left = sorted(path.name for path in out.rglob("*.tmp"))
        step = load_state(out)["step"] if saved_states(out) else None
        assert wait(start(data, out, processes=processes)) == [0] * processes, f"point {point} of {total}"
        assert_same_state(whole, out)
        found.append({"point": point, "of": total, "signal": -code, "left": left, "step": step})
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
