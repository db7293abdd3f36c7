from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from internimage.classification.training.recipe import EpochScheduleSettings, ScaledOptimizerSettings
from internimage.classification.training.recipes import RECIPES
from internimage.recipe.schedules import EpochSchedule
from internimage.training.optim import set_rates
from tests.training.conftest import recorded_json

RUNS = recorded_json("classification_lr.json.gz")


def rates(
    settings: EpochScheduleSettings,
    optimizer: ScaledOptimizerSettings,
    *,
    steps_per_epoch: int,
    batch_size: int,
    world: int = 1,
) -> EpochSchedule:
    recipe = RECIPES["internimage_t_1k_224"]
    data = replace(recipe.data, batch_size=batch_size)
    recipe = replace(recipe, schedule=settings, optimizer=optimizer, data=data)
    return recipe.rates(steps_per_epoch, world=world)


def plain(settings: EpochScheduleSettings, steps_per_epoch: int, *, base_lr: float, **lrs: float) -> EpochSchedule:
    """Return a schedule for steps of 512 images."""
    given = {f"{name}_per_512": value for name, value in lrs.items()}
    optimizer = ScaledOptimizerSettings(lr_per_512=base_lr, **given)
    return rates(settings, optimizer, steps_per_epoch=steps_per_epoch, batch_size=512)


def schedule_of(run: dict[str, Any]) -> EpochSchedule:
    base, warmup, minimum = run["yaml_base_warmup_min"]
    return rates(
        EpochScheduleSettings(kind=run["scheduler"], epochs=run["epochs"], warmup_epochs=run["warmup_epochs"]),
        ScaledOptimizerSettings(lr_per_512=base, warmup_lr_per_512=warmup, min_lr_per_512=minimum),
        steps_per_epoch=run["iterations_per_epoch"],
        batch_size=run["batch_per_gpu"],
        world=run["world"],
    )


@pytest.mark.parametrize(
    "run", RUNS, ids=lambda run: f"{run['config'].split('/')[-1]}-{run['scheduler']}-{run['world']}"
)
def test_rates_equal_the_original(run: dict[str, Any]) -> None:
    schedule = schedule_of(run)
    for step, rates in zip(run["iteration"], run["lr"], strict=True):
        given = [schedule.lr(step, multiplier) for multiplier in run["group_multipliers"]]
        assert given == pytest.approx(rates, rel=1e-9, abs=1e-18), step


def test_accumulated_batches_raise_the_rates() -> None:
    settings = ScaledOptimizerSettings(lr_per_512=1e-3, accumulation_steps=4)
    schedule = rates(EpochScheduleSettings(), settings, steps_per_epoch=10, batch_size=64)
    assert schedule.base_lr == 1e-3 * 64 * 4 / 512
    assert schedule.total_steps == 3000


def test_the_first_two_steps_share_a_rate_and_the_last_is_near_the_minimum() -> None:
    schedule = plain(EpochScheduleSettings(epochs=4, warmup_epochs=1), 10, base_lr=1.0, warmup_lr=0.1, min_lr=0.01)
    assert schedule.lr(0) == schedule.lr(1) == 0.1
    assert schedule.lr(2) == pytest.approx(0.19)
    assert 0.01 < schedule.lr(39) < 0.02
    assert schedule.lr(1000) == 0.01


def test_apply_scales_each_group() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [{"params": [p], "lr_multiplier": m} for p, m in zip(parameters, (1.0, 0.25), strict=True)]
    schedule = plain(EpochScheduleSettings(epochs=2, warmup_epochs=0), 5, base_lr=2.0, warmup_lr=0.0, min_lr=0.0)
    optimizer = torch.optim.SGD(groups, lr=9.0)
    set_rates(optimizer, schedule, 0)
    assert schedule.lr(0) == 2.0
    assert [group["lr"] for group in optimizer.param_groups] == [2.0, 0.5]


def test_step_decay() -> None:
    settings = replace(EpochScheduleSettings(), kind="step", epochs=9, warmup_epochs=0, step_epochs=3)
    schedule = plain(settings, 2, base_lr=1.0, warmup_lr=0.0, min_lr=0.0)
    assert [schedule.lr(step) for step in (1, 6, 7, 13)] == pytest.approx([1.0, 1.0, 0.1, 0.01])
