from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from internimage.recipe import SceneOptimizerSettings, SceneScheduleSettings
from internimage.recipe.schedules import IterationSchedule
from internimage.training import RECIPES
from internimage.training.optim import set_rates
from tests.training.conftest import recorded_json

RUNS = recorded_json("dense_lr.json.gz")


def rates(settings: SceneScheduleSettings, steps_per_epoch: int, lr: float) -> IterationSchedule:
    recipe = replace(
        RECIPES["dino_internimage_pico_closet"], schedule=settings, optimizer=SceneOptimizerSettings(lr=lr)
    )
    schedule = recipe.rates(steps_per_epoch)
    assert isinstance(schedule, IterationSchedule)
    return schedule


def schedule_of(run: dict[str, Any]) -> IterationSchedule:
    config, runner = run["lr_config"], run["runner"]
    epochs = runner.get("max_epochs", 0)
    settings = SceneScheduleSettings(
        kind="poly" if config["type"].startswith("Poly") else "step",
        epochs=epochs,
        iterations=runner.get("max_iters", 0),
        steps=tuple(config.get("step", ())),
        power=config.get("power", 1.0),
        warmup_iterations=config["warmup_iters"],
        warmup_ratio=config["warmup_ratio"],
    )
    return rates(settings, run["iterations_per_epoch"] or 100, run["base_lr"])


@pytest.mark.parametrize("name", RUNS)
def test_rates_equal_the_original(name: str) -> None:
    run = RUNS[name]
    schedule = schedule_of(run)
    assert schedule.total_steps == run["total_iterations"]
    for step, rates in zip(run["iteration"], run["lr"], strict=True):
        given = [schedule.lr(step, multiplier) for multiplier in run["group_multipliers"]]
        assert given == pytest.approx(rates, rel=1e-9, abs=1e-18), step


def test_a_run_has_epochs_or_iterations() -> None:
    with pytest.raises(ValueError, match=r"either schedule\.epochs or schedule\.iterations"):
        SceneScheduleSettings(epochs=3, iterations=5)
    assert rates(SceneScheduleSettings(epochs=3, validate_every=2), 7, 1.0).validate_every == 14
    by_step = rates(SceneScheduleSettings(epochs=0, iterations=90, validate_every=20), 7, 1.0)
    assert (by_step.total_steps, by_step.validate_every) == (90, 20)


def test_apply_scales_each_group() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([{"params": [parameter], "lr_multiplier": 0.5}], lr=9.0)
    schedule = rates(SceneScheduleSettings(warmup_iterations=0), 10, 2.0)
    set_rates(optimizer, schedule, 80)
    assert schedule.lr(80) == pytest.approx(0.2)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
