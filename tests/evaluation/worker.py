"""One of the processes that share an evaluation: worker.py FOLDER OUT STOP TASK [TASK ...]."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import internimage as ii

RANK = int(os.environ.get("RANK", "0"))
BATCH_SIZES = {"classification": 3, "detection": 1, "segmentation": 2}


def measured(folder: Path, out: Path, task: str, *, stop: int = 0) -> dict[str, Any]:
    """Return the report of the model of a task and the images that were done at each call of `progress`.

    The second process dies after `stop` images, never at 0.
    """
    calls: list[int] = []

    def progress(done: int, of: int) -> None:
        calls.append(done)
        if stop and RANK == 1 and done >= stop:
            os.kill(os.getpid(), signal.SIGKILL)

    data, kept = folder / ("classes" if task == "classification" else "scenes"), out / task
    more = {"confusion": kept / "confusion.png"} if task == "classification" else {}
    report = ii.evaluate(
        ii.load(folder / f"{task}.safetensors"),
        data,
        split="train",
        batch_size=BATCH_SIZES[task],
        folder=kept,
        progress=progress,
        **more,
    )
    return {"report": json.loads(json.dumps(report.to_dict()).replace(str(out), "OUT")), "calls": calls}


def main(folder: Path, out: Path, stop: int, *tasks: str) -> None:
    """Measure the models of some tasks and write down what was found."""
    torch.set_num_threads(1)
    for task in tasks:
        found = measured(folder, out, task, stop=stop)
        (out / f"{task}-{RANK}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
