from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner, Result

from internimage.backbones import variant
from internimage.checkpoints.save import save_model
from internimage.classification import ClassificationPreprocess, Classifier
from internimage.cli import app
from internimage.detection import RCNN, DetectionPreprocess, RCNNConfig
from internimage.detection.config import BoxStageConfig, MaskHeadConfig, ProposalConfig, RPNConfig
from internimage.hub.create import create
from tests.threads import one_thread as one_thread

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run the command line in this process; `run("info", "x")` returns exit_code, stdout and stderr."""

    def invoke(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file of a small classifier of cats, dogs and owls."""
    torch.manual_seed(0)
    names = ["cat", "dog", "owl"]
    model = create(
        "classifier", backbone="internimage_pico", class_names=names, preprocess=ClassificationPreprocess(32)
    )
    assert isinstance(model, Classifier)
    with torch.no_grad():
        model.head.classifier.weight.mul_(50)  # answers that differ
    return save_model(model, tmp_path_factory.mktemp("weights") / "pets.safetensors")


@pytest.fixture(scope="session")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file of a small detector of cats, dogs and owls that draws masks and reports many objects."""
    torch.manual_seed(0)
    config = RCNNConfig(
        variant("internimage_pico"),
        num_classes=3,
        channels=32,
        rpn=RPNConfig(channels=32, test=ProposalConfig(kept=30)),
        stages=(BoxStageConfig(num_fcs=1, fc_channels=32),),
        mask=MaskHeadConfig(num_convs=1, channels=16),
        preprocess=DetectionPreprocess(shorter_side=64, longer_side=96),
        class_names=("cat", "dog", "owl"),
    )
    model = RCNN(config)
    with torch.no_grad():
        for head in model.box_heads:
            head.classifier.weight.normal_(std=0.7)  # type: ignore[union-attr]
            head.regressor.weight.normal_(std=0.05)  # type: ignore[union-attr]
    return save_model(model, tmp_path_factory.mktemp("weights") / "animals.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three images, one of them below a folder, and a file that is none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, hw in (("a.png", (40, 60)), ("b.jpg", (33, 20)), ("more/a.png", (8, 8))):
        PIL.Image.fromarray(rng.integers(0, 256, (*hw, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    return folder
