from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner, Result

from internimage.classification import Classifier, PreprocessConfig
from internimage.cli import app
from internimage.zoo import create, save_model

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
    model = create("classifier", backbone="internimage_pico", class_names=names, preprocess=PreprocessConfig(32))
    assert isinstance(model, Classifier)
    with torch.no_grad():
        model.head.classifier.weight.mul_(50)  # answers that differ
    return save_model(model, tmp_path_factory.mktemp("weights") / "pets.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three pictures, one of them below a folder, and a file that is none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, hw in (("a.png", (40, 60)), ("b.jpg", (33, 20)), ("more/a.png", (8, 8))):
        PIL.Image.fromarray(rng.integers(0, 256, (*hw, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small work needs no team of threads, which on a busy machine mostly waits for its members."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
