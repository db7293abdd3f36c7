"""A new task is one folder (tests/rotation) and one line in the list of tasks: then the whole house knows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import PIL.Image
import pytest
import torch
from typer.testing import CliRunner, Result

import internimage as ii
from internimage import tasks
from internimage.checkpoints import catalog as catalog_module
from internimage.checkpoints.catalog import CatalogEntry, catalog
from internimage.cli import app
from internimage.training import recipe, train
from internimage.training.recipes import KINDS, RECIPES
from tests.rotation.model import TURNS, Rotation, Turn

Run = Callable[..., Result]
ROW = CatalogEntry(
    name="rotation_internimage_pico",
    task="rotation",
    backbone="internimage_pico",
    layer_scale=None,
    head="linear",
    method="a task of the tests",
    dataset="turned images",
    labels=None,
    num_classes=4,
    input_size="32",
    metrics={"accuracy": 50.0},
    parameters=None,
    published_parameters=None,
    gflops=None,
    licence="MIT",
    url="https://example.com/rotation_internimage_pico.pth",
    config_path=None,
    recipe="rotation_internimage_pico",
    remarks="",
    is_built=True,
)


@pytest.fixture(autouse=True)
def house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The house with one more task and one more row of the catalog."""
    monkeypatch.setenv("INTERNIMAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(tasks.MODULES, "rotation", "tests.rotation.task")
    monkeypatch.setitem(catalog(), ROW.name, ROW)
    own = tasks.station("rotation", "training.recipes")
    assert own is not None
    for name, found in own.RECIPES.items():  # as `training.recipes` does for the whole list when it is imported
        monkeypatch.setitem(RECIPES, name, found)
        monkeypatch.setitem(KINDS, found.task, type(found))
    catalog_module._index.cache_clear()
    yield
    monkeypatch.undo()
    catalog_module._index.cache_clear()


@pytest.fixture
def run() -> Run:
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight images, dark above and light below."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(8):
        image = PIL.Image.new("RGB", (40, 40), (200, 220, 240))
        image.paste((20, 30, 10 * i), (0, 0, 40, 20))
        image.save(folder / f"{i}.png")
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return ii.save_model(ii.create("rotation", backbone="internimage_pico"), tmp_path / "model.safetensors")


def test_created_saved_and_loaded(file: Path) -> None:
    model = ii.load(file)
    assert isinstance(model, Rotation) and tasks.of_model(model).noun == "rotation finder"
    again = ii.create("rotation", weights=file)
    assert isinstance(again, Rotation) and torch.equal(again.head.weight, model.head.weight)
    on_backbone = ii.create("rotation", weights=ii.save_model(model.backbone, file.with_stem("backbone")))
    assert torch.equal(next(on_backbone.backbone.parameters()), next(model.backbone.parameters()))


def test_converted_there_and_back(file: Path, tmp_path: Path, run: Run) -> None:
    original = ii.convert(file, tmp_path / "original.pth")
    assert "turn.weight" in torch.load(original, weights_only=True)["state_dict"]
    assert run("convert", original, tmp_path / "again.safetensors").exit_code == 0
    first, again = ii.load(file).state_dict(), ii.load(tmp_path / "again.safetensors").state_dict()
    assert first.keys() == again.keys() and all(torch.equal(first[key], again[key]) for key in first)


def test_listed_and_told(file: Path, run: Run) -> None:
    assert ROW.name in ii.list_models() and ii.list_models(task="rotation") == [ROW.name]
    assert "rotation (1)" in run("list", "--task", "rotation").stdout
    of_row, of_file = (json.loads(run("info", name, "--json").stdout) for name in (ROW.name, file))
    assert of_row["task"] == of_file["task"] == "rotation" and of_file["model"] == "rotation"
    assert of_file["class_names"] == list(TURNS)


def test_a_published_checkpoint_is_loaded_by_its_name(file: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    ii.convert(file, tmp_path / "home" / f"{ROW.name}.pth")
    assert torch.equal(ii.load(ROW.name, offline=True).head.weight, ii.load(file).head.weight)


def test_predicted_and_drawn(file: Path, photos: Path, tmp_path: Path, run: Run) -> None:
    [turn] = ii.load(file).predict([photos / "0.png"])
    assert isinstance(turn, Turn) and turn.name in TURNS and turn.original_hw == (40, 40)
    rows = [json.loads(line) for line in run("predict", file, photos, "--json", "--out", tmp_path).stdout.splitlines()]
    assert rows[0]["turn"] == turn.name and len(rows) == 8 and Path(rows[0]["drawn"]).exists()
    assert turn.name in run("predict", file, photos).stdout
    refused = run("predict", file, photos, "--masks")
    assert refused.exit_code == 2 and "this model is for rotation" in " ".join(refused.stderr.split())


def test_evaluated(file: Path, photos: Path, run: Run) -> None:
    report = ii.evaluate(ii.load(file), photos)
    told = json.loads(run("evaluate", file, photos, "--json").stdout)
    assert told["accuracy"] == report.to_dict()["accuracy"] and told["num_images"] == report.num_images == 8
    assert "turns found" in run("evaluate", file, photos).stdout
    refused = run("evaluate", file, photos, "--multi-scale")
    assert refused.exit_code == 2 and "this model is for rotation" in " ".join(refused.stderr.split())


def test_trained_on_from_the_published_model_and_afresh(file: Path, photos: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "home").mkdir()
    ii.convert(file, tmp_path / "home" / f"{ROW.name}.pth")
    result = train(recipe(ROW.name), data=photos, out=tmp_path / "run", progress=False)
    assert result.metric == "val_accuracy" and isinstance(ii.load(tmp_path / "run"), Rotation)
    assert ROW.name in run("train", "--list").stdout
    (tmp_path / "mine.yaml").write_text(run("recipe", ROW.name).stdout, encoding="utf-8")
    told = run("train", tmp_path / "mine.yaml", "--data", photos, "--out", tmp_path / "again", "--json")
    assert json.loads(told.stdout)["history"][0]["train_loss"] == result.to_dict()["history"][0]["train_loss"]
    longer = run("train", "--resume", "--out", tmp_path / "again", "--set", "schedule.epochs=2", "--json")
    assert len(json.loads(longer.stdout)["history"]) == 2


def test_measured(file: Path, run: Run) -> None:
    for name, weights in ((file, str(file)), (ROW.name, "random")):
        report = json.loads(run("bench", name, "--runs", 1, "--json").stdout)
        assert (report["size"], report["weights"], report["objects_found"]) == (32, weights, None)
        assert report["difference_from_reference"] <= 1e-4
