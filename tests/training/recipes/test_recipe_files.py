"""Recipes as YAML files, and the settings of runs of release 0.1."""

from __future__ import annotations

import gzip
import json
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from internimage.training import RECIPES, recipe, train
from internimage.training.recipes import document, read_recipe, to_yaml
from internimage.training.resuming import resumed_recipe
from internimage.training.state import flat_settings, load_state
from tests.training.conftest import TINY
from tests.training.runs import assert_same_state, stop_after

PICO, MASKS = "internimage_pico_fashion", "mask_rcnn_internimage_t_fpn_1x_coco"
# Every recipe of release 0.1, some with changes: its settings as state.pt held them, and the model that it built.
RELEASE_0_1: list[dict[str, Any]] = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "settings" / "release_0_1.json.gz").read_bytes())
)
FROM_DATA = ("num_classes", "class_names", "palette")


def yaml_of(text: str, tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- files


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_its_file(name: str, tmp_path: Path) -> None:
    found = read_recipe(yaml_of(to_yaml(RECIPES[name]), tmp_path))
    assert found == RECIPES[name] and type(found) is type(RECIPES[name]) and not found.explicit


def test_what_a_file_changes_is_chosen_by_the_user(tmp_path: Path) -> None:
    text = to_yaml(RECIPES[MASKS]).replace("epochs: 12", "epochs: 30")
    assert read_recipe(yaml_of(text, tmp_path)).explicit == {"schedule.epochs"}
    short = yaml_of(f"name: {MASKS}\nschedule: {{epochs: 30}}\noptimizer: {{lr: 1e-3}}", tmp_path)
    found: Any = recipe(str(short))
    assert found.explicit == {"schedule.epochs", "optimizer.lr"}
    assert (found.schedule.epochs, found.optimizer.lr, found.augment.pipeline) == (30, 1e-3, "1x")


def test_a_recipe_of_an_own_name_states_what_it_needs(tmp_path: Path) -> None:
    text = to_yaml(RECIPES[PICO]).replace(f"name: {PICO}", "name: mine")
    own: Any = read_recipe(yaml_of(text, tmp_path))
    assert own.name == "mine" and {"schedule.epochs", "data.holdout"} <= own.explicit
    with pytest.raises(ValueError, match=r"mine\.yaml: task must be one of classification, .* given None"):
        read_recipe(yaml_of("name: mine", tmp_path))
    with pytest.raises(ValueError, match=r"mine\.yaml: ClassificationRecipe\.model is missing"):
        read_recipe(yaml_of("name: mine\ntask: classification", tmp_path))


def test_another_detector_replaces_the_whole_configuration(tmp_path: Path) -> None:
    values = document(RECIPES[MASKS])
    values["model"]["config"] = document(RECIPES["dino_internimage_pico_closet"])["model"]["config"]
    found: Any = read_recipe(yaml_of(json.dumps(values), tmp_path))  # JSON is YAML
    assert found.value("model.architecture") == "dino_small"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 24", "epochs: many", r"schedule\.epochs must be int, given 'many'"),
        ("epochs: 24", "epochs: 0", r"schedule\.epochs must be at least 1, given 0"),
        ("epochs: 24", "epoch: 24", r"schedule has no field epoch;"),
        (
            "horizontal_flip: 0.5",
            "horizontal_flip: 2",
            r"augment\.horizontal_flip must be at most 1\.0 \(it lies in 0\.\.1",
        ),
        ("precision: auto", "precision: fp8", r"run\.precision must be one of .*fp32.*, given 'fp8'"),
        ("channels: 24", "channels: 0", r"BackboneConfig\.channels must be at least 1"),
        ("head: conv", "head: conv\n    num_classes: 3", r"takes num_classes from the data"),
        ("name:", "- name:", "no valid YAML"),
        ("name: internimage_pico_fashion", "name: &a x\nother: *a", "no valid YAML: aliases"),
    ],
)
def test_files_that_hold_no_recipe(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = to_yaml(RECIPES[PICO])
    assert old in text
    with pytest.raises(ValueError, match=rf"mine\.yaml: .*{message}"):
        read_recipe(yaml_of(text.replace(old, new), tmp_path))


def test_files_are_read_up_to_a_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has more than 1048576 bytes"):
        read_recipe(yaml_of("# " + "x" * 2**20, tmp_path))
    with pytest.raises(ValueError, match="expected the settings of a recipe"):
        read_recipe(yaml_of("[]", tmp_path))
    with pytest.raises(FileNotFoundError):
        recipe("nothing.yaml")


def test_a_run_by_a_file_goes_on(tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    chosen = RECIPES[PICO].with_overrides((*TINY, "data.workers=0", "schedule.warmup_epochs=0.3"))
    path = yaml_of(to_yaml(chosen).replace(f"name: {PICO}", "name: mine"), tmp_path)
    train(str(path), data=tiny_fashion, out=tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        stop_after(patch, 4, lambda trainer: os.kill(os.getpid(), signal.SIGINT))
        train(str(path), data=tiny_fashion, out=tmp_path / "cut", progress=False)
    train(out=tmp_path / "cut", resume=True, progress=False)
    assert_same_state(tmp_path / "whole", tmp_path / "cut")
    # what a run has written is a recipe, too, its start decided
    expected = read_recipe(path).with_values({"model.start": "recipe"})
    assert read_recipe(tmp_path / "cut" / "recipe.json") == expected


# --- release 0.1


@pytest.mark.parametrize("row", RELEASE_0_1, ids=lambda row: "-".join((row["recipe"], *row["overrides"])))
def test_settings_of_release_0_1(row: dict[str, Any]) -> None:
    chosen = RECIPES[row["recipe"]].with_overrides(row["overrides"])
    config = {key: value for key, value in asdict(chosen.model.config).items() if key not in FROM_DATA}
    expected = {key: value for key, value in row["config"].items() if key not in FROM_DATA}
    assert json.loads(json.dumps(config)) == expected
    run = {name: getattr(chosen.model, name) for name in row["options"]}
    assert run == row["options"]
    assert resumed_recipe(row["settings"], None, ()) == chosen


def test_a_run_of_release_0_1_goes_on(tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    [old] = [row for row in RELEASE_0_1 if row["recipe"] == PICO and "data.size=32" in row["overrides"]]
    overrides = (*old["overrides"], "run.plot=false", "run.tensorboard=false")
    train(PICO, data=tiny_fashion, out=tmp_path / "whole", overrides=overrides, progress=False)
    with monkeypatch.context() as patch:
        stop_after(patch, 4, lambda trainer: os.kill(os.getpid(), signal.SIGINT))
        train(PICO, data=tiny_fashion, out=tmp_path / "cut", overrides=overrides, progress=False)
    state = load_state(tmp_path / "cut")
    now = flat_settings(resumed_recipe(state["settings"], None, ()))
    # As release 0.1 wrote it: the settings that it had, and nothing of the model's configuration.
    kept = {key: now.get(key, value) for key, value in old["settings"].items()}
    state["settings"] = kept
    del state["task"]
    torch.save(state, tmp_path / "cut" / "state.pt")
    with pytest.raises(ValueError, match=r"data\.size: started with 32, given 64"):
        train(out=tmp_path / "cut", resume=True, overrides=("data.size=64",), progress=False)
    train(out=tmp_path / "cut", resume=True, progress=False)
    assert_same_state(tmp_path / "whole", tmp_path / "cut")
