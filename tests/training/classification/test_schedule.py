from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from internimage.training.classification.config import ScaledOptimizerSettings, ScheduleSettings
from internimage.training.classification.schedule import EpochSchedule, build_schedule
from tests.training.conftest import recorded_json

RUNS = recorded_json("classification_lr.json.gz")


def schedule_of(run: dict[str, Any]) -> EpochSchedule:
    base, warmup, minimum = run["yaml_base_warmup_min"]
    return build_schedule(
        ScheduleSettings(kind=run["scheduler"], epochs=run["epochs"], warmup_epochs=run["warmup_epochs"]),
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
    schedule = build_schedule(ScheduleSettings(), settings, steps_per_epoch=10, batch_size=64)
    assert schedule.base_lr == 1e-3 * 64 * 4 / 512
    assert schedule.total_steps == 3000


def test_the_first_two_steps_share_a_rate_and_the_last_is_near_the_minimum() -> None:
    schedule = EpochSchedule(ScheduleSettings(epochs=4, warmup_epochs=1), 10, base_lr=1.0, warmup_lr=0.1, min_lr=0.01)
    assert schedule.lr(0) == schedule.lr(1) == 0.1
    assert schedule.lr(2) == pytest.approx(0.19)
    assert 0.01 < schedule.lr(39) < 0.02
    assert schedule.lr(1000) == 0.01


def test_apply_scales_each_group() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [{"params": [p], "lr_multiplier": m} for p, m in zip(parameters, (1.0, 0.25), strict=True)]
    schedule = EpochSchedule(ScheduleSettings(epochs=2, warmup_epochs=0), 5, base_lr=2.0, warmup_lr=0.0, min_lr=0.0)
    optimizer = torch.optim.SGD(groups, lr=9.0)
    assert schedule.apply(optimizer, 0) == 2.0
    assert [group["lr"] for group in optimizer.param_groups] == [2.0, 0.5]


def test_step_decay() -> None:
    settings = replace(ScheduleSettings(), kind="step", epochs=9, warmup_epochs=0, step_epochs=3)
    schedule = EpochSchedule(settings, 2, base_lr=1.0, warmup_lr=0.0, min_lr=0.0)
    assert [schedule.lr(step) for step in (1, 6, 7, 13)] == pytest.approx([1.0, 1.0, 0.1, 0.01])
