"""One call measures a model of any task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import internimage as ii
from internimage.classification import ClassificationPreprocess
from internimage.classification.evaluate import evaluate_classification
from internimage.flow import TaskModel


@pytest.fixture(scope="module")
def model() -> TaskModel[Any]:
    return ii.create(
        "classifier",
        backbone="internimage_pico",
        class_names=["cat", "dog"],
        preprocess=ClassificationPreprocess(size=32),
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        for i in range(3):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(tmp_path / "data" / "val" / name / f"{i}.png")
    return tmp_path / "data"


def test_the_report_is_that_of_the_task(model: TaskModel[Any], data: Path, tmp_path: Path) -> None:
    own = evaluate_classification(model, data)  # type: ignore[arg-type]  # `create` tells no task apart
    calls: list[tuple[int, int]] = []
    report = ii.evaluate(
        model,
        data,
        batch_size=4,
        folder=tmp_path / "run",
        published="internimage_t_1k_224",
        progress=lambda done, total: calls.append((done, total)),
        confusion=tmp_path / "confusion.png",
    )
    assert calls == [(4, 6), (6, 6)] and report.num_images == 6 and report.rows() == []
    assert report.to_dict() == own.to_dict() | {"published_top1": 0.835, "loss": pytest.approx(own.loss)}
    assert report.fields("ImageNet")["published"] == "83.50% on ImageNet"
    assert (tmp_path / "run" / "progress.jsonl").exists() and (tmp_path / "confusion.png").is_file()


def test_options_of_other_tasks_are_refused(model: TaskModel[Any], data: Path) -> None:
    with pytest.raises(TypeError, match="merge is for detection, this model is for classification"):
        ii.evaluate(model, data, merge="nms")
    with pytest.raises(TypeError, match="looks is for no task, this model is for classification"):
        ii.evaluate(model, data, looks=3)
    with pytest.raises(ValueError, match="batch_size must be at least 1, given 0"):
        ii.evaluate(model, data, batch_size=0)
