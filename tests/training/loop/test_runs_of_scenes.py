"""Whole runs of detectors and segmentors: what they leave behind, and going on after Ctrl-C."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from internimage.detection import RCNN
from internimage.hub.load import load
from internimage.segmentation import Segmentor
from internimage.training import TrainingResult, train
from internimage.training.state import load_state
from tests.training.runs import assert_same_state, stop_after
from tests.training.scenes import CLASS_NAMES, scene_recipe


@dataclass
class Run:
    name: str
    out: Path
    result: TrainingResult


@pytest.fixture(scope="module", params=["mask_rcnn", "upernet"])
def whole(request: pytest.FixtureRequest, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("run") / "whole"
    return Run(request.param, out, train(scene_recipe(request.param), data=scenes, out=out, progress=False))


@pytest.mark.parametrize("whole", ["mask_rcnn"], indirect=True)
def test_a_run_leaves_a_detector_with_the_classes_of_the_data(whole: Run, scenes: Path) -> None:
    result = whole.result
    assert result.metric == "val_mask_ap" and len(result.history) == 2 and result.last is not None
    columns = {"val_box_ap", "val_box_ap50", "val_box_ap75", "val_mask_ap", "val_mask_ap50", "val_mask_ap75"}
    assert columns <= result.history[0].keys()
    assert all(0 <= row[column] <= 1 for row in result.history for column in columns)
    model = load(result.last)
    assert isinstance(model, RCNN) and model.config.class_names == CLASS_NAMES
    [prediction] = model.predict([scenes / "val" / "1.png"])
    assert prediction.masks is not None and prediction.original_hw == (64, 64)


@pytest.mark.parametrize("whole", ["upernet"], indirect=True)
def test_a_run_leaves_a_segmentor_with_the_classes_of_the_data(whole: Run, scenes: Path) -> None:
    result = whole.result
    assert result.metric == "val_miou" and len(result.history) == 2 and result.last is not None
    assert all(0 <= row[column] <= 1 for row in result.history for column in ("val_miou", "val_macc", "val_aacc"))
    model = load(result.last)
    assert isinstance(model, Segmentor) and model.config.class_names == ("background", *CLASS_NAMES)
    [prediction] = model.predict([scenes / "val" / "1.png"])
    assert prediction.original_hw == (64, 64)


def test_resumed_run_equals_the_uninterrupted_one(
    whole: Run, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 3, lambda trainer: os.kill(os.getpid(), signal.SIGINT))
        assert train(scene_recipe(whole.name), data=scenes, out=tmp_path, progress=False).interrupted
    assert load_state(tmp_path)["step"] == 3
    torch.rand(7)  # the state of the process must not matter
    train(scene_recipe(whole.name), data=scenes, out=tmp_path, progress=False, resume=True)
    assert_same_state(whole.out, tmp_path)
