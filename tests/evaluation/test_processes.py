"""Several processes share an evaluation: the metrics are those of one, also after one of them was killed."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import internimage as ii
from internimage import parallel
from internimage.classification import ClassificationPreprocess
from internimage.detection import DetectionPreprocess
from internimage.segmentation import SegFormerConfig, SegmentationPreprocess
from tests.evaluation.worker import measured
from tests.processes import be_process
from tests.threads import torch_threads
from tests.training.parallel.processes import finished, start
from tests.training.scenes import CLASS_NAMES, write_scenes

pytestmark = pytest.mark.distributed
WORKER = Path(__file__).with_name("worker.py")
RECORDS = {"classification": "progress.jsonl", "detection": "predictions.jsonl", "segmentation": "progress.jsonl"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of each task with random weights, and seven images, which no number of processes shares evenly."""
    root = tmp_path_factory.mktemp("shared")
    scenes = write_scenes(root / "scenes", train=7)
    (scenes / "train" / "7.png").write_bytes(b"broken")
    for name in CLASS_NAMES:
        (root / "classes" / "train" / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(11):
        image = PIL.Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
        image.save(root / "classes" / "train" / CLASS_NAMES[i % 3] / f"{i}.png")
    settings: dict[str, tuple[str, dict[str, Any]]] = {
        "classification": ("classifier", {"preprocess": ClassificationPreprocess(32)}),
        "detection": ("mask_rcnn", {"preprocess": DetectionPreprocess(shorter_side=64, longer_side=64)}),
        "segmentation": (
            "segformer",
            {"head": SegFormerConfig(channels=8), "preprocess": SegmentationPreprocess(scale=(64, 64))},
        ),
    }
    for task, (name, options) in settings.items():
        torch.manual_seed(0)
        # A segmentor learns the background, too, which is the first class of the scenes' label maps.
        names = ["background", *CLASS_NAMES] if task == "segmentation" else list(CLASS_NAMES)
        model = ii.create(name, backbone="internimage_pico", class_names=names, **options)
        ii.save_model(model, root / f"{task}.safetensors")
    return root


@pytest.fixture(scope="module")
def one(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What a process on its own finds in the images of each task."""
    out = tmp_path_factory.mktemp("one")
    with torch_threads(1):
        return out, {task: measured(folder, out, task) for task in RECORDS}


def evaluated(folder: Path, out: Path, stop: int, *tasks: str) -> list[subprocess.Popen[str]]:
    """Start two processes that share an evaluation, without a launcher that would end them together."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    return [start(WORKER, folder, out, stop, *tasks, RANK=rank, LOCAL_RANK=rank, **place) for rank in "01"]


def records(out: Path, task: str) -> dict[int, Any]:
    """Return the lines of a file of records by image, of which none stands there twice."""
    lines = (out / task / RECORDS[task]).read_text(encoding="utf-8").splitlines()[1:]
    entries = [json.loads(line) for line in lines]
    found = {entry["index"]: entry for entry in entries if "error" not in entry}
    assert len(found) == sum("error" not in entry for entry in entries)
    return found


def files(out: Path, task: str) -> list[str]:
    return sorted(path.name for path in (out / task).iterdir())


def test_two_processes_find_what_one_finds(folder: Path, one: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for process in evaluated(folder, tmp_path, 0, *RECORDS):
        finished(process)
    for task, alone in one[1].items():
        assert alone["report"]["images"] == (11 if task == "classification" else 6)
        assert records(tmp_path, task) == records(one[0], task) and files(tmp_path, task) == files(one[0], task)
        for rank in (0, 1):
            shared = json.loads((tmp_path / f"{task}-{rank}.json").read_text(encoding="utf-8"))
            assert shared["report"] == alone["report"]
            assert len(shared["calls"]) == (len(alone["calls"]) + 1 - rank) // 2


def test_what_killed_processes_found_is_kept(folder: Path, one: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """The second one dies after two of its images; another number of processes goes on after all that was found."""
    first, second = evaluated(folder, tmp_path, 4, "detection")
    text = finished(first, 1)
    assert "process 0 of 2: ConnectionError: another process has ended or did not answer in time" in text
    second.communicate()
    assert second.returncode == -9
    part = tmp_path / "detection" / "predictions.jsonl.part1"
    assert len(part.read_text(encoding="utf-8").splitlines()) == 3
    with torch_threads(1):
        again = measured(folder, tmp_path, "detection")
    assert again["report"] == one[1]["detection"]["report"] and again["calls"] == [6, 7]  # 5, and what is broken
    assert records(tmp_path, "detection") == records(one[0], "detection")
    assert files(tmp_path, "detection") == files(one[0], "detection")


def test_the_command_line_starts_processes(folder: Path, one: tuple[Path, dict[str, Any]]) -> None:
    words = ("evaluate", folder / "classification.safetensors", folder / "classes", "--split", "train", "--json")
    process = start("-m", "internimage", *words, "--processes", 2, "--batch-size", 3, "--device", "cpu")
    text = finished(process)
    found = json.loads(text[text.index("{") :])
    assert {name: found[name] for name in one[1]["classification"]["report"]} == one[1]["classification"]["report"]


def test_other_models_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ii.load(folder / "classification.safetensors")
    be_process(monkeypatch, 0, of=2)
    monkeypatch.setattr(parallel, "gathered", lambda own: [own, ("another model", *own[1:])])
    with pytest.raises(ValueError, match=r"given different arguments \(model\); give all of them the same"):
        ii.evaluate(model, folder / "classes", split="train")
