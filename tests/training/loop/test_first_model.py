"""Own data trains at the first try: a recipe as it is, but for sizes that keep the test short."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from internimage.detection import RCNN
from internimage.hub.load import load
from internimage.segmentation import Segmentor
from internimage.training import train
from tests.training.scenes import CLASS_NAMES

QUICK = ("run.tensorboard=false", "run.plot=false", "schedule.epochs=3", "data.val_batch_size=4")
DETECTOR = (*QUICK, "preprocess.shorter_side=64", "preprocess.longer_side=64")
DETECTOR += ("augment.shorter_side=64,64", "augment.longer_side=64", "model.max_per_image=5")
SEGMENTOR = (*QUICK, "preprocess.scale=64,64", "augment.scale=64,64", "augment.crop_hw=64,64")


def without_masks(scenes: Path, out: Path) -> Path:
    data = shutil.copytree(scenes, out)
    for file in (data / "annotations").iterdir():
        content = json.loads(file.read_text())
        for entry in content["annotations"]:
            del entry["segmentation"]
        file.write_text(json.dumps(content))
    return data


@pytest.mark.parametrize("has_masks", [True, False])
def test_a_detector(scenes: Path, tmp_path: Path, has_masks: bool) -> None:
    data = scenes if has_masks else without_masks(scenes, tmp_path / "data")
    out = tmp_path / "run"
    result = train("mask_rcnn_internimage_pico_closet", data=data, out=out, overrides=DETECTOR, progress=False)
    settings = json.loads((out / "recipe.json").read_text())
    assert settings["model"]["weights"] == "mask_rcnn_internimage_pico_closet"
    assert settings["model"]["backbone_weights"] is None and settings["model"]["learn_masks"] == has_masks
    assert settings["data"]["batch_size"] == 2 and settings["schedule"]["warmup_iterations"] == 1  # of 12 steps
    assert result.metric == ("val_mask_ap" if has_masks else "val_box_ap")
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert result.last is not None
    model = load(result.last)
    assert isinstance(model, RCNN) and model.config.class_names == CLASS_NAMES
    assert (model.config.mask is not None) == has_masks


def test_a_segmentor_without_a_validation_part(scenes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(scenes, tmp_path / "data")
    shutil.rmtree(data / "val")
    shutil.rmtree(data / "labels" / "val")
    out = tmp_path / "run"
    result = train("upernet_internimage_pico_closet", data=data, out=out, overrides=SEGMENTOR, progress=False)
    settings = json.loads((out / "recipe.json").read_text())
    assert settings["model"]["weights"] == "upernet_internimage_pico_closet"
    assert (settings["data"]["holdout"], settings["data"]["batch_size"]) == (2, 2)  # of 8 images
    assert settings["schedule"]["warmup_iterations"] == 0  # of 9 steps
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert result.last is not None and isinstance(load(result.last), Segmentor)
