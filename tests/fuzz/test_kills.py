"""kill -9 of a training anywhere, in the middle of a write, too: what goes on ends with the same bits."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.conftest import TINY, write_idx
from tests.training.runs import assert_same_state
from tests.training.scenes import SMALL, TINY_DENSE, write_scenes

DRIVER = Path(__file__).with_name("killed_runs.py")
WEIGHTS = ("last.safetensors", "best.safetensors")
# Own writes of a run of three epochs, and its steps, are no more than these.
WRITES, STEPS = 18, 9


def write_images(root: Path) -> Path:
    """Write 40 training images and 8 for validation in the files of Fashion-MNIST."""
    root.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 8)):
        write_idx(root / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(root / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    return root


def carry_out(tmp_path: Path, recipe: str, overrides: tuple[str, ...], data: Path, kills: list[list[list[Any]]]) -> int:
    """Run once without and once with each list of kills; compare everything; return how many kills there were."""
    outs = [tmp_path / f"run{number}" for number in range(len(kills) + 1)]
    runs = [{"out": str(out), "kills": own} for out, own in zip(outs, [[], *kills], strict=True)]
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"recipe": recipe, "overrides": overrides, "data": str(data), "runs": runs}))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, DRIVER, plan], capture_output=True, text=True, env=environment, timeout=3000)
    assert done.returncode == 0, done.stderr[-2000:]
    for out in outs[1:]:
        assert_same_state(outs[0], out)
        for name in WEIGHTS:
            assert (out / name).read_bytes() == (outs[0] / name).read_bytes(), name
        assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in outs[0].iterdir())
    return json.loads(done.stdout)["kills"]


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """Killed in the write of its second state, and at a step after that."""
    data = write_images(tmp_path / "data")
    kills: list[list[Any]] = [["write", 6], ["step", 2]]
    overrides = (*TINY, "data.batch_size=8", "data.holdout=16", "schedule.epochs=1", "run.save_minutes=0")
    assert carry_out(tmp_path, "internimage_pico_fashion", overrides, data, [kills]) == len(kills)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classifier", "detector", "segmentor"])
def test_runs_killed_at_random_go_on(tmp_path: Path, task: str) -> None:
    draw = random.Random(task)
    kills = []
    for _ in range(10):
        own = [["write", draw.randint(1, WRITES)] if draw.random() < 0.6 else ["step", draw.randint(1, STEPS)]]
        kills.append(own * draw.randint(1, 3))
    if task == "classifier":
        data = write_images(tmp_path / "data")
        overrides = (*TINY, "data.batch_size=8", "data.holdout=16", "run.save_minutes=0")
        recipe = "internimage_pico_fashion"
    else:
        data = write_scenes(tmp_path / "data")
        overrides = (*TINY_DENSE, *SMALL["detection" if task == "detector" else "segmentation"], "run.save_minutes=0")
        recipe = f"{'mask_rcnn' if task == 'detector' else 'upernet'}_internimage_pico_closet"
    assert carry_out(tmp_path, recipe, overrides, data, kills) >= len(kills) // 2
