"""Images of four channels from the data set to the finished model, in every task and through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from typer.testing import CliRunner

from internimage.classification.evaluate import evaluate_classification
from internimage.cli import app
from internimage.data.images.read import BadImage
from internimage.detection.evaluate import evaluate_detection
from internimage.hub.load import load
from internimage.segmentation.evaluate import evaluate_segmentation
from internimage.training import recipe, train
from tests.training.building import build_model
from tests.training.conftest import TINY
from tests.training.scenes import TINY_DENSE

SMALL = {
    "segmentation": ("preprocess.scale=64,64", "augment.scale=64,64", "augment.crop_hw=64,64"),
    "detection": ("preprocess.shorter_side=64", "preprocess.longer_side=64", "augment.shorter_side=64,64"),
}
RECIPES = {"segmentation": "upernet_internimage_pico_closet", "detection": "mask_rcnn_internimage_pico_closet"}
RANGE = (0, 1023)


def four_channels(path: Path, rng: np.random.Generator) -> np.ndarray:
    """Return the image with a fourth channel, in 10 bits."""
    rgb = np.asarray(PIL.Image.open(path)).astype(np.uint16)
    return np.dstack([rgb, rng.integers(0, 256, rgb.shape[:2], dtype=np.uint16)]) * 4


@pytest.fixture(scope="module")
def deep_scenes(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes with four channels of 10 bits: training images as TIFF, validation images as arrays."""
    root = shutil.copytree(scenes, tmp_path_factory.mktemp("deep") / "data")
    rng = np.random.default_rng(0)
    for split, suffix in (("train", ".tif"), ("val", ".npy")):
        for path in sorted((root / split).glob("*.png")):
            values = four_channels(path, rng)
            if suffix == ".npy":
                np.save(path.with_suffix(suffix), values)
            else:
                tifffile.imwrite(path.with_suffix(suffix), values, photometric="rgb", extrasamples=["unspecified"])
            path.unlink()
        file = root / "annotations" / f"{split}.json"
        file.write_text(file.read_text(encoding="utf-8").replace(".png", suffix), encoding="utf-8")
    return root


@pytest.mark.parametrize("task", RECIPES)
def test_dense_models_of_four_channels(deep_scenes: Path, scenes: Path, tmp_path: Path, task: str) -> None:
    settings = (*TINY_DENSE, *SMALL[task], "model.in_chans=4", "preprocess.value_range=0,1023", "schedule.epochs=1")
    weights = ("model.backbone_weights=internimage_pico_fashion",)
    chosen = recipe(RECIPES[task]).with_overrides([*settings, *weights])
    result = train(chosen, data=deep_scenes, out=tmp_path / "run", progress=False)
    model = load(result.last)
    preprocess = model.config.preprocess
    assert model.config.backbone.in_chans == preprocess.channels == 4 and preprocess.value_range == RANGE
    measure = evaluate_segmentation if task == "segmentation" else evaluate_detection
    assert not measure(model, deep_scenes).skipped
    files = sorted((deep_scenes / "val").glob("*.npy"))
    arrays = [np.load(file) for file in files]
    for one, other in zip(model.predict(files), model.predict(arrays), strict=True):
        assert one.to_dict() == other.to_dict() and one.original_hw == (64, 64)
    with pytest.raises(BadImage, match="reads images of 4 channels, given 3"):
        model.predict([scenes / "val" / "1.png"])
    out = CliRunner().invoke(
        app, ["predict", str(result.last), str(deep_scenes / "val"), "--out", str(tmp_path / "out")]
    )
    assert out.exit_code == 0, out.output
    assert len(list((tmp_path / "out").glob("*.jpg"))) == len(files)
    out = CliRunner().invoke(app, ["evaluate", str(result.last), str(deep_scenes), "--json"])
    assert out.exit_code == 0 and json.loads(out.stdout)["images"] == len(files)


@pytest.mark.parametrize("kind", ["shift", "crop"])
def test_a_classifier_of_four_channels(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4)):
        for label, name in enumerate(("apple", "pear")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 300, (24, 30, 4), dtype=np.uint16)
                image[..., 3] += 700 * label  # only the fourth channel tells them apart
                np.save(tmp_path / "data" / split / name / f"{i}.npy", image)
    augment = () if kind == "shift" else ("augment.kind=crop", "augment.crop_scale=0.8,1", "augment.rand_augment=m9")
    settings = [*TINY, "data.holdout=0", "data.workers=0", "model.in_chans=4", "data.value_range=0,1023", *augment]
    chosen = recipe("internimage_pico_fashion").with_overrides([*settings, "model.weights=internimage_pico_fashion"])
    chosen = chosen.with_overrides(["model.reset_head=true", "schedule.epochs=2", "schedule.warmup_epochs=0"])
    result = train(chosen, data=tmp_path / "data", out=tmp_path / "run", progress=False)
    model = load(result.last)
    assert model.config.preprocess.mean == (0.449,) * 4 and model.config.preprocess.value_range == RANGE
    report = evaluate_classification(model, tmp_path / "data")
    assert report.num_images == 8 and not report.skipped
    out = CliRunner().invoke(app, ["predict", str(result.last), str(tmp_path / "data" / "val"), "--json"])
    assert out.exit_code == 0 and len(out.stdout.splitlines()) == 8


def test_own_statistics_of_the_channels() -> None:
    chosen = recipe("internimage_pico_fashion").with_overrides(
        [*TINY, "model.in_chans=2", "data.mean=0.1,0.2", "data.std=0.3,0.4"]
    )
    assert build_model(chosen, ("a", "b")).config.preprocess.std == (0.3, 0.4)
    with pytest.raises(ValueError, match="one value for each channel"):
        build_model(chosen.with_overrides(["data.mean=0.1,0.2,0.3"]), ("a", "b"))
