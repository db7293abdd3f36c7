"""Which strategy a run takes, and what does not go together: said before a process does any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from internimage.errors import MissingExtra
from internimage.training.parallel.launch import chosen_strategy
from internimage.training.recipes import recipe


def strategy(*overrides: str) -> str:
    return chosen_strategy(recipe("internimage_pico_fashion").with_overrides(overrides))


def test_the_recipe_decides_unless_it_leaves_it_to_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert strategy() == "ddp"
    assert strategy("parallel.strategy=fsdp") == "fsdp"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert strategy() == strategy("parallel.strategy=fsdp", "parallel.offload=true") == "fsdp"
    with pytest.raises(ValueError, match=r"asks for fsdp, but the recipe has parallel\.strategy=ddp"):
        strategy("parallel.strategy=ddp")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ValueError, match="set fsdp_version: 2"):
        strategy()


def test_what_does_not_go_together_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"strategy.*'zero9'"):
        strategy("parallel.strategy=zero9")
    with pytest.raises(ValueError, match=r"parallel\.offload=true goes with parallel\.strategy=fsdp, given ddp"):
        strategy("parallel.offload=true")
    with pytest.raises(ValueError, match=r"run\.precision=fp16 goes with parallel\.strategy=ddp, given fsdp"):
        strategy("parallel.strategy=fsdp", "run.precision=fp16")
    with pytest.raises(ValueError, match=r"gradient_compression=bf16 goes with parallel\.strategy=ddp, given fsdp"):
        strategy("parallel.strategy=fsdp", "parallel.gradient_compression=bf16")
    assert strategy("run.compile=true") == "ddp"
    with pytest.raises(ValueError, match=r"run\.compile=true goes with parallel\.strategy=ddp, given fsdp"):
        strategy("parallel.strategy=fsdp", "run.compile=true")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert strategy("run.precision=bf16") == "ddp"
    with pytest.raises(ValueError, match=r"accelerate launch asks for bf16, but the recipe has run\.precision=fp32"):
        strategy("run.precision=fp32")


@pytest.fixture
def by_deepspeed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Of what accelerate launch hands on when it is told to use DeepSpeed; as if that were installed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    return monkeypatch


def test_accelerate_may_ask_for_deepspeed(by_deepspeed: pytest.MonkeyPatch) -> None:
    assert strategy() == strategy("parallel.strategy=zero3") == "zero3"
    with pytest.raises(ValueError, match=r"asks for zero3, but the recipe has parallel\.strategy=zero1"):
        strategy("parallel.strategy=zero1")
    by_deepspeed.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "0")
    with pytest.raises(ValueError, match="asks for ZeRO 0 of DeepSpeed; give zero_stage 1, 2 or 3"):
        strategy()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "GRADIENT_ACCUMULATION_STEPS",
            "4",
            "gradient_accumulation_steps=4, but the recipe has optimizer.accumulation",
        ),
        ("GRADIENT_CLIPPING", "0.25", "gradient_clipping=0.25, but the recipe has optimizer.clip_norm=1.0"),
        ("DEEPSPEED_OFFLOAD_PARAM_DEVICE", "cpu", "parameters to cpu, but the recipe has parallel.offload=false"),
        ("DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "nvme", "the optimizer to nvme and parameters to none, but"),
    ],
)
def test_what_deepspeed_is_told_agrees_with_the_recipe(
    by_deepspeed: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    by_deepspeed.setenv(f"ACCELERATE_{variable}", value)
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        strategy()
    by_deepspeed.setenv(f"ACCELERATE_{variable}", {"4": "1", "0.25": "1"}.get(value, "none"))
    assert strategy() == "zero3"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bf16": {"enabled": True}}, "accelerate launch asks for bf16, but the recipe has run.precision=fp32"),
        ({"optimizer": {"type": "Adam"}}, "has optimizer, which is the recipe's; take it out"),
        ({"train_micro_batch_size_per_gpu": 3}, "micro_batch_size_per_gpu=3, but the recipe has data.batch_size=128"),
        ({"zero_optimization": {"stage": 2}}, None),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}, "offload the optimizer to cpu"),
        ([], "holds no JSON object"),
    ],
)
def test_a_file_of_deepspeed_agrees_with_the_recipe(
    by_deepspeed: pytest.MonkeyPatch, tmp_path: Path, settings: Any, message: str | None
) -> None:
    (tmp_path / "zero.json").write_text(json.dumps(settings))
    by_deepspeed.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "zero.json"))
    if message is None:
        assert strategy("run.precision=fp32") == "zero2"
    else:
        with pytest.raises(ValueError, match=message.replace(".", r"\.")):
            strategy("run.precision=fp32")


def test_deepspeed_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"parallel\.strategy=zero2 needs .*pip install 'internimage\[deepspeed\]'"):
        strategy("parallel.strategy=zero2")
