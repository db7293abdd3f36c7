"""One of the processes of `tests.training.parallel.processes.run`: worker.py FUNCTION FOLDER [ARGUMENT ...]."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import torch

from internimage import parallel
from tests.training.parallel import cases

RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def five_steps(folder: Path, strategy: str, dtypes: str, *names: str) -> None:
    """Write what each case gives in these precisions, such as "float64,float32"."""
    chosen = {
        "offload": ("parallel.strategy=fsdp", "parallel.offload=true"),
        "zero1_offload": ("parallel.strategy=zero1", "parallel.offload=true"),
        "zero3_offload": ("parallel.strategy=zero3", "parallel.offload=true"),
        "bf16": ("parallel.gradient_compression=bf16",),
    }
    overrides = chosen.get(strategy, (f"parallel.strategy={strategy}",))
    for name in names:
        for dtype in dtypes.split(","):
            place = folder / f"{name}-{dtype}-{strategy}-{WORLD}"
            with cases.in_float64() if dtype == "float64" else contextlib.nullcontext():
                found = cases.five_steps(name, folder, place, processes=WORLD, overrides=overrides)
            torch.save(found, folder / f"{name}-{dtype}-{strategy}-{WORLD}-{RANK}.pt")
            parallel.leave()


def resume_on_full_disk(out: Path) -> None:
    """Go on with a run for another epoch while the last process cannot write its shards."""
    from internimage.training import train
    from tests.full_disk import largest_file

    limit = largest_file(100_000) if RANK == WORLD - 1 else contextlib.nullcontext()
    with limit:
        train(out=out, resume=True, overrides=["schedule.epochs=3"], device="cpu", progress=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
