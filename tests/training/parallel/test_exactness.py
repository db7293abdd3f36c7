"""Several processes find the gradients and the weights that one process finds from the same whole batches."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.parallel.cases import CASES
from tests.training.parallel.processes import finished, start_worker

pytestmark = pytest.mark.distributed
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}


def run_cases(root: Path, fashion: Path, scenes: Path, processes: int, dtypes: str) -> Path:
    for source, name in ((fashion, "fashion"), (scenes, "scenes")):
        shutil.copytree(source, root / name)
    alone, together = (start_worker(count, "five_steps", root, dtypes, *CASES) for count in (1, processes))
    finished(alone)
    finished(together)
    return root


@pytest.fixture(scope="module")
def of_two(tiny_fashion: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_cases(tmp_path_factory.mktemp("two"), tiny_fashion, scenes, 2, "float64")


@pytest.fixture(scope="module")
def of_four(tiny_fashion: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_cases(tmp_path_factory.mktemp("four"), tiny_fashion, scenes, 4, "float64,float32")


def compare(root: Path, name: str, dtype: str, processes: int) -> None:
    expected: dict[str, dict[str, Any]] = torch.load(root / f"{name}-{dtype}-1-0.pt")
    assert len(expected["gradients"]) > 50
    for rank in range(processes):
        found = torch.load(root / f"{name}-{dtype}-{processes}-{rank}.pt")
        for part, tensors in expected.items():
            assert found[part].keys() == tensors.keys()
            for key, value in tensors.items():
                text = f"{part} of process {rank}: {key}"
                torch.testing.assert_close(
                    found[part][key],
                    value,
                    rtol=TOLERANCE[dtype],
                    atol=TOLERANCE[dtype],
                    msg=lambda m, t=text: f"{t}: {m}",
                )


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(of_two: Path, name: str) -> None:
    compare(of_two, name, "float64", 2)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", [name for name in CASES if name != "classifier_mixed"])
def test_four_processes_equal_one(of_four: Path, name: str, dtype: str) -> None:
    """MixUp needs pairs of images, of which four processes that share four images have none."""
    compare(of_four, name, dtype, 4)
