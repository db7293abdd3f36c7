"""Several processes find the gradients and the weights that one process finds from the same whole batches."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.parallel.cases import CASES
from tests.training.parallel.processes import finished, start_worker

pytestmark = pytest.mark.distributed
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
NEEDS_DEEPSPEED = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
PLAIN = [name for name in CASES if name != "classifier_mixed"]


@pytest.fixture(scope="module")
def root(tiny_fashion: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    for source, name in ((tiny_fashion, "fashion"), (scenes, "scenes")):
        shutil.copytree(source, folder / name)
    return folder


def compare(root: Path, names: list[str], strategy: str, dtype: str, processes: int) -> None:
    """Let one process and several take the steps, and compare what all of them found."""
    missing = [name for name in names if not (root / f"{name}-{dtype}-auto-1-0.pt").exists()]
    running = [start_worker(1, "five_steps", root, "auto", dtype, *missing)] if missing else []
    running.append(start_worker(processes, "five_steps", root, strategy, dtype, *names))
    for process in running:
        finished(process)
    for name in names:
        expected: dict[str, dict[str, Any]] = torch.load(root / f"{name}-{dtype}-auto-1-0.pt")
        assert len(expected["gradients"]) > 50
        for rank in range(processes):
            found = torch.load(root / f"{name}-{dtype}-{strategy}-{processes}-{rank}.pt")
            for part, tensors in expected.items():
                assert found[part].keys() == tensors.keys()
                for key, value in tensors.items():
                    difference = (found[part][key] - value).abs()
                    is_close = difference <= TOLERANCE[dtype] * (1 + value.abs())
                    assert is_close.all(), f"{name}, {part} of process {rank}: {key}, {difference.max()}"


def test_two_processes(root: Path) -> None:
    compare(root, ["classifier_mixed", "mask_rcnn", "upernet"], "ddp", "float64", 2)


def test_two_processes_with_shards(root: Path) -> None:
    compare(root, ["mask_rcnn"], "fsdp", "float64", 2)


@NEEDS_DEEPSPEED
@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3"])
def test_two_processes_with_deepspeed(root: Path, strategy: str) -> None:
    """It keeps float32, whatever the model has."""
    compare(root, ["classifier_mixed", "mask_rcnn", "upernet"], strategy, "float32", 2)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_with_every_model(root: Path, strategy: str) -> None:
    compare(root, list(CASES), strategy, "float64", 2)


@pytest.mark.slow
def test_compressed_gradients_are_rounded(root: Path) -> None:
    for processes, strategy in ((1, "auto"), (2, "bf16")):
        finished(start_worker(processes, "five_steps", root, strategy, "float32", "classifier"))
    expected = torch.load(root / "classifier-float32-auto-1-0.pt")["gradients"]
    found = torch.load(root / "classifier-float32-bf16-2-1.pt")["gradients"]
    largest = max(value.abs().max() for value in expected.values())
    differences = [(found[key] - value).abs().max() / largest for key, value in expected.items()]
    assert 1e-5 < max(differences) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "offload"])
def test_four_processes(root: Path, strategy: str, dtype: str) -> None:
    """MixUp needs pairs of images, of which four processes that share four images have none."""
    compare(root, PLAIN, strategy, dtype, 4)
