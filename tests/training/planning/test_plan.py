"""What a plan counts, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from internimage.errors import UnknownName
from internimage.training import recipe
from internimage.training.planning import plan, step
from internimage.training.planning.live_memory import LiveMemory, step_memory
from internimage.training.planning.step import Counts, Precision, backbone_memory, head_memory
from internimage.training.planning.strategies import STRATEGIES, Load, memory_in_validation, memory_of, sent_per_step

PICO = "internimage_pico_fashion"


def test_storages_are_counted_from_beginning_to_end() -> None:
    with LiveMemory() as memory:
        first = torch.zeros(1000)
        view = first.view(10, 100)
        second = first + 1
        assert memory.live == 8000
        del second
        assert memory.live == 4000
        del first
        assert memory.live == 4000 and view.shape == (10, 100)  # a view keeps the storage
        del view
    assert (memory.live, memory.peak) == (0, 8000)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_step_of_two_linear_layers(device: str) -> None:
    width, images = 64, 32
    model = nn.Sequential(nn.Linear(width, width, bias=False), nn.ReLU(), nn.Linear(width, width, bias=False)).to(
        device
    )
    found = step_memory(model, lambda: model(torch.zeros(images, width, device=device)).sum())
    one, weight = images * width * 4, width * width * 4
    # the input and the output of ReLU, and the loss; torch keeps ReLU's output once for itself and the layer behind it
    assert found.kept == 2 * one + 4
    assert found.gradients == 2 * weight
    assert found.kept < found.peak <= found.peak_with_gradients <= found.kept + 3 * one + 2 * weight
    assert all(parameter.grad is None for parameter in model.parameters())


def test_strategies_split_what_they_say() -> None:
    counts = Counts(parameters=1000, trained=800, buffers=12, largest_block=100, outside_blocks=50)
    load = Load(counts, 4, is_half=True, moments=2, has_average=True, accumulation=2)
    found = {strategy.name: memory_of(strategy, load) for strategy in STRATEGIES}
    rows = {name: (m.weights, m.gradients, m.optimizer, m.average) for name, m in found.items()}
    assert rows == {
        "one device": (4012, 3200, 6400, 4000),
        "ddp": (4012, 3200, 6400, 4000),
        "zero1": (4012, 3200, 2400, 1000),
        "zero2": (4012, 800, 2400, 1000),
        "zero2_offload": (4012, 0, 0, 0),
        "zero3": (1012, 800, 1600, 1000),
        "zero3_offload": (12, 0, 0, 0),
        "fsdp": (1012, 3200, 1600, 1000),
        "fsdp_offload": (12, 3200, 0, 0),
    }
    beside = {strategy.name: memory_in_validation(strategy, load) for strategy in STRATEGIES}
    assert {name for name, size in beside.items() if size} == {"fsdp", "fsdp_offload"}
    assert beside["fsdp"] == 1012 + 1600 + 1000 + 4012  # the whole model beside weights, moments and average
    assert beside["fsdp_offload"] == 12 + 4012
    sent = {strategy.name: sent_per_step(strategy, load) for strategy in STRATEGIES}
    assert sent["ddp"] == 3200 * 2 * 3 // 4  # gradients in full precision, around the ring twice
    assert sent_per_step(STRATEGIES[1], dataclasses.replace(load, compresses=True)) == sent["ddp"] // 2
    assert sent["zero1"] == (3200 + 4000) * 3 // 4
    assert sent["fsdp"] == (2 * 2 * 4000 + 3200) * 3 // 4  # gradients once a step
    assert sent["zero3"] == 2 * (2 * 4000 + 3200) * 3 // 4
    halves = dataclasses.replace(load, halves_weights=True)  # as the original ran it
    found = {strategy.name: memory_of(strategy, halves) for strategy in STRATEGIES if strategy.deepspeed}
    assert [(m.weights, m.gradients, m.optimizer) for m in found.values()] == [
        *[(2012, 1600, 2400), (2012, 400, 2400), (2012, 0, 0), (512, 400, 2400), (12, 0, 0)]
    ]


def test_checkpointing_and_more_devices_need_less() -> None:
    settings = ["data.batch_size=4", "run.precision=fp32"]
    alone = plan(PICO, devices=1, memory_gib=4, overrides=settings)
    plain, checkpointed = alone.options
    assert checkpointed.memory.activations < plain.memory.activations
    assert alone.global_batch == 4 and alone.steps == 24 * (60_000 // 4)
    two = plan(PICO, devices=2, memory_gib=4, overrides=settings, interconnect_gb=1.0, images_per_second=100)
    fsdp = next(option for option in two.options if option.strategy.name == "fsdp")
    ddp = next(option for option in two.options if option.strategy.name == "ddp")
    assert fsdp.memory.total < ddp.memory.total
    assert two.global_batch == 8 and two.highest_lr == pytest.approx(2 * alone.highest_lr, rel=1e-3)
    assert two.seconds is not None and two.steps is not None
    assert two.seconds == pytest.approx(two.steps * (0.04 + ddp.sent / 1e9))


def test_checkpointing_is_proposed_where_nothing_else_fits() -> None:
    found = plan(PICO, devices=1, memory_gib=1.65, overrides=["data.batch_size=128", "run.precision=fp32"])
    plain, checkpointed = found.options
    assert checkpointed.fits and not plain.fits
    command = found.command(["data.batch_size=128"])
    assert command is not None and command.endswith("--set model.activation_checkpointing=true")


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        (PICO, {"devices": 0}, "devices must be at least 1, given 0"),
        (PICO, {"memory_gib": 1.0}, "must exceed the reserve of 1.5 GiB"),
        (PICO, {"images_per_second": 0.0}, "must be positive"),
        (PICO, {"images": 100}, "do not fill one step of 2 devices x 128 images"),
        ("internimage_h_22kto1k_640", {"memory_gib": 2.0}, "do not hold the 1,089,636,760 parameters"),
    ],
)
def test_what_is_refused(name: str, changes: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        plan(name, **{"devices": 2, "memory_gib": 8.0, **changes})  # type: ignore[arg-type]  # of several types


def test_a_head_of_large_images_is_run_on_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = recipe("upernet_internimage_pico_closet")
    whole = head_memory(chosen, 11, autocast=False)
    monkeypatch.setattr(step, "MOST_PIXELS", whole.image_shape[1] * whole.image_shape[2] // 4)
    quarter = head_memory(chosen, 11, autocast=False)
    assert quarter.image_shape == whole.image_shape
    assert quarter.images == pytest.approx(whole.images / 4)
    assert quarter.step.peak < whole.step.peak / 2
    assert quarter.peak(8) == pytest.approx(whole.peak(8), rel=0.05)


def test_both_backbones_of_a_composite_one_are_counted() -> None:
    chosen = recipe("dino_internimage_pico_closet").with_overrides(["data.batch_size=1"])
    precision = Precision(torch.float32, autocast=False)
    one, two = (
        backbone_memory(
            chosen.with_values({"model.config.num_backbones": count}), (1, 3, 64, 64), precision, checkpointing=False
        )
        for count in (1, 2)
    )
    assert two.kept > 1.9 * one.kept
    head = head_memory(chosen.with_values({"model.config.num_backbones": 2}), 11, autocast=False)
    assert head.image_shape == head_memory(chosen, 11, autocast=False).image_shape


def test_unknown_recipes_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="internimage_t_1k_224"):
        plan("internimage_t_1k", devices=1, memory_gib=8)
