"""Two checkouts of this repository in turns: is the newer one as fast, and does it compute the same?

Run: `python -m benchmarks.checkouts PATH_OF_THE_OTHER [--seconds 20]`; the other one needs its compiled kernels.
"""

from __future__ import annotations

import argparse
import copy
import os
import pickle
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.record import print_table, save

PLAIN, FLASH = "internimage_t", "flash_internimage_t"
# At 32 pixels what Python does around the kernels decides.
CASES = [
    (name, form, dtype, batch, 224)
    for name, form, batches in ((PLAIN, "fused", (1, 8)), (PLAIN, "plain", (1, 8)))
    for dtype in ("float32", "bfloat16")
    for batch in batches
] + [(name, "fused", dtype, 1, side) for name, side in ((FLASH, 224), (PLAIN, 32)) for dtype in ("float32", "bfloat16")]
TOLERANCE = {"float32": 1e-3, "bfloat16": 8e-2}


def serve() -> None:
    """In a process of its own: read cases, answer with CPU milliseconds of one run on one thread and the last map."""
    from internimage.backbones import InternImage, variant

    torch.set_num_threads(1)

    @cache
    def network(name: str) -> InternImage:
        torch.manual_seed(0)
        model = InternImage(variant(name))
        for key, parameter in model.named_parameters():
            if key.endswith(("offset.weight", "mask.weight")):  # away from their zero start
                nn.init.normal_(parameter, std=0.02)
        return model.eval()

    @cache
    def prepare(name: str, form: str, dtype: torch.dtype, batch: int, side: int) -> tuple[InternImage, torch.Tensor]:
        model = copy.deepcopy(network(name)).to(dtype)
        torch.manual_seed(1)
        return model.fuse() if form == "fused" else model, torch.randn(batch, 3, side, side).to(dtype)

    for line in sys.stdin:
        name, form, dtype, batch, side = line.split()
        model, pixels = prepare(name, form, getattr(torch, dtype), int(batch), int(side))
        with torch.inference_mode():
            start = time.process_time()
            last = model(pixels).maps[-1]
            took = (time.process_time() - start) * 1e3
        sys.stdout.buffer.write(pickle.dumps((took, last.float().numpy().tobytes())))
        sys.stdout.buffer.flush()


def ask(process: subprocess.Popen[bytes], case: tuple[Any, ...]) -> tuple[float, torch.Tensor]:
    """One run of one case in one checkout."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write((" ".join(map(str, case)) + "\n").encode())
    process.stdin.flush()
    took, values = pickle.load(process.stdout)
    return took, torch.frombuffer(bytearray(values), dtype=torch.float32)


def main() -> None:
    """Measure in turns, compare outputs, print and save."""
    here = Path(__file__).parent.parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, nargs="?", default=here)
    parser.add_argument("--serve", action="store_true", help="be one of the two processes")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    if options.serve:
        return serve()
    processes = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name, root in (("other", options.other.resolve()), ("this", here))
    }
    rows = []
    for case in CASES:
        best, outputs = dict.fromkeys(processes, float("inf")), {}
        deadline, rounds = time.perf_counter() + options.seconds, 0
        while rounds < 5 or time.perf_counter() < deadline:
            for name, process in processes.items():
                took, outputs[name] = ask(process, case)
                best[name] = min(best[name], took)
            rounds += 1
        error = float((outputs["this"] - outputs["other"]).norm() / outputs["other"].norm())
        if not error <= TOLERANCE[case[2]]:
            raise SystemExit(f"correctness check failed: {case} differs by {error:.2e}")
        rows.append(
            {
                **dict(zip(("model", "form", "dtype", "batch", "side"), case, strict=True)),
                **{f"{name}_ms": value for name, value in best.items()},
                "other_over_this": best["other"] / best["this"],
                "relative_difference": error,
                "rounds": rounds,
            }
        )
        print(rows[-1], flush=True)
    for process in processes.values():
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    print_table("two checkouts in turns, least CPU milliseconds of a forward pass on one thread", rows)
    save("checkouts", "cpu", rows)


if __name__ == "__main__":
    main()
