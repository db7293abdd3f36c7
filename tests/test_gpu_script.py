"""`benchmarks/gpu.sh` on a machine without a GPU; what it runs is tried out with `--device cpu` by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(["bash", SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_without_a_gpu_it_says_so() -> None:
    done = run("--python", sys.executable)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no GPU here" in done.stderr and "nothing was measured" in done.stderr


def test_wrong_options_are_refused() -> None:
    assert run("--fast", "yes").returncode == 2
    done = run("--limits")
    assert done.returncode == 2 and "lacks its value" in done.stderr
