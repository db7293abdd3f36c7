"""Which strategy a run takes, and what does not go together: said before a process does any work."""

from __future__ import annotations

import pytest

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
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match="asks for DeepSpeed"):
        strategy()
