"""With which settings a run goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from internimage.training import RECIPES, recipe, train
from internimage.training.resuming import resumed_recipe
from internimage.training.state import flat_settings, load_state
from tests.training.conftest import TINY
from tests.training.runs import stop_after

RECIPE = "internimage_pico_fashion"
SAVED = flat_settings(recipe(RECIPE).with_overrides(TINY))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_its_settings(name: str) -> None:
    saved = json.loads(json.dumps(flat_settings(RECIPES[name])))
    assert resumed_recipe(saved, None, ()) == RECIPES[name]


def test_a_run_takes_up_its_settings() -> None:
    for given in (None, RECIPE):
        assert resumed_recipe(SAVED, given, ()) == recipe(RECIPE).with_overrides(TINY)
    assert resumed_recipe(SAVED, None, ("data.size=32", "run.seed=0")).value("data.size") == 32


@pytest.mark.parametrize(
    "override",
    ["data.workers=3", "run.threads=2", "run.save_minutes=1", "run.plot=true", "run.tensorboard=true", "epochs=9"],
)
def test_settings_that_leave_the_numbers_alone_may_differ(override: str, caplog: pytest.LogCaptureFixture) -> None:
    chosen = resumed_recipe(SAVED, None, (override,))
    assert chosen == recipe(RECIPE).with_overrides((*TINY, override))
    name, _, value = override.rpartition(".")[2].partition("=")
    assert f"{name}={value.capitalize() if value == 'true' else value}" in caplog.text.replace(".0,", ",")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.size=64", "data.size: started with 32, given 64"),
        ("optimizer.betas=0.9,0.95", r"optimizer.betas: started with \[0.9, 0.999\], given \[0.9, 0.95\]"),
        ("schedule.epochs=2", "schedule.epochs: started with 3, given 2"),
        ("model.weights=x", "model.weights: started with None, given 'x'"),
    ],
)
def test_settings_that_change_the_numbers_are_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resumed_recipe(SAVED, None, (override,))


def test_other_recipes_are_refused() -> None:
    with pytest.raises(ValueError, match="goes by the recipe internimage_pico_fashion, given internimage_t_1k_224"):
        resumed_recipe(SAVED, "internimage_t_1k_224", ())
    own = replace(recipe(RECIPE).with_overrides(TINY), name="mine")
    with pytest.raises(ValueError, match="'mine', which is none of this package; give the recipe itself"):
        resumed_recipe(flat_settings(own), None, ())
    assert resumed_recipe(flat_settings(own), own, ()) == own
    with pytest.raises(ValueError, match="name: started with 'mine'"):
        resumed_recipe(flat_settings(own), recipe(RECIPE).with_overrides(TINY), ())


def test_settings_of_other_releases(caplog: pytest.LogCaptureFixture) -> None:
    older = {key: value for key, value in SAVED.items() if key != "run.plot"} | {"run.dropped": 3}
    assert resumed_recipe(older, None, ()) == recipe(RECIPE).with_overrides((*TINY, "run.plot=true"))
    assert "does not know: run.dropped" in caplog.text
    with pytest.raises(ValueError, match="cannot be read"):
        resumed_recipe({**SAVED, "data.size": "large"}, None, ())


def test_rates_fall_later_in_a_longer_run() -> None:
    given = recipe("mask_rcnn_internimage_t_fpn_1x_coco")
    longer = resumed_recipe(flat_settings(given), None, ("schedule.epochs=24", "schedule.steps=16,22"))
    assert (longer.schedule.epochs, longer.schedule.steps) == (24, (16, 22))
    assert resumed_recipe(flat_settings(given), None, ("schedule.epochs=24",)).schedule.steps == (8, 11)
    with pytest.raises(ValueError, match=r"schedule.steps: started with"):
        resumed_recipe(flat_settings(given), None, ("schedule.steps=16,22",))


def test_a_finished_run_may_become_longer(tiny_fashion: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    train(RECIPE, data=tiny_fashion, out=tmp_path, overrides=(*TINY, "schedule.epochs=2"), progress=False)
    two = load_state(tmp_path)["rows"]
    result = train(out=tmp_path, resume=True, overrides=("schedule.epochs=4",), progress=False)
    assert result.history[:2] == two and [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert json.loads((tmp_path / "recipe.json").read_text())["schedule"]["epochs"] == 4
    # half-way of the longer cosine, where the shorter one had ended
    assert two[1]["lr"] < result.history[2]["lr"] and result.history[3]["lr"] < result.history[2]["lr"]
    # what was lengthened goes on as it is
    assert train(out=tmp_path, resume=True, progress=False).history == result.history


def test_a_run_that_goes_on_needs_no_start_weights(
    tiny_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "internimage.training")
    overrides, first = (*TINY, "schedule.epochs=2"), tmp_path / "first"
    train(RECIPE, data=tiny_fashion, out=first, overrides=overrides, progress=False)
    overrides = (*overrides, f"model.weights={first / 'last.safetensors'}")
    with monkeypatch.context() as patch:
        stop_after(patch, 1, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        train(RECIPE, data=tiny_fashion, out=tmp_path / "run", overrides=overrides, progress=False)
    shutil.rmtree(first)
    assert "starts from" in caplog.text
    caplog.clear()
    assert not train(out=tmp_path / "run", resume=True, progress=False).interrupted
    assert "starts from" not in caplog.text


def test_a_new_run_needs_recipe_and_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a recipe and data"):
        train(out=tmp_path / "run")
    with pytest.raises(ValueError, match="needs a recipe and data"):
        train(RECIPE, out=tmp_path / "run")


def test_a_run_of_an_older_release_does_not_say_where_its_data_is(tiny_fashion: Path, tmp_path: Path) -> None:
    overrides = (*TINY, "schedule.epochs=2")
    first = train(RECIPE, data=tiny_fashion, out=tmp_path, overrides=overrides, progress=False)
    state = load_state(tmp_path)
    del state["data_path"]
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="give the folder of the data set"):
        train(out=tmp_path, resume=True, progress=False)
    assert train(data=tiny_fashion, out=tmp_path, resume=True, progress=False).history == first.history
