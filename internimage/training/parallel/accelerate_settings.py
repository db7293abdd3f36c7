"""What accelerate launch was told about the processes, by its options or its configuration, beside the recipe."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from internimage.recipe import Recipe

USE_DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"
_FILE = "ACCELERATE_DEEPSPEED_CONFIG_FILE"
# Settings of a file of DeepSpeed that a recipe has, too.
_ACCUMULATION, _CLIPPING, _BATCH = "gradient_accumulation_steps", "gradient_clipping", "train_micro_batch_size_per_gpu"
_OF_RECIPES = ("optimizer", "scheduler", "train_batch_size")


def asked_strategy() -> str | None:
    """Return the strategy that accelerate launch was told, None where it was told none.

    Raises:
        ValueError: this package does not run it.
    """
    environment = os.environ
    if environment.get(USE_DEEPSPEED, "false").lower() == "true":
        zero = deepspeed_settings().get("zero_optimization", {})
        stage = str(zero.get("stage", environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")))
        if stage not in ("1", "2", "3"):
            raise ValueError(f"accelerate launch asks for ZeRO {stage} of DeepSpeed; give zero_stage 1, 2 or 3")
        return f"zero{stage}"
    if environment.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    if environment.get("FSDP_VERSION", "1") != "2":
        raise ValueError("accelerate launch asks for FSDP 1; set fsdp_version: 2 in its configuration")
    return "fsdp"


def check_agreement(recipe: Recipe) -> None:
    """Refuse what accelerate launch was told and the recipe has otherwise.

    Args:
        recipe: every setting of the run.

    Raises:
        ValueError: precision, or something that DeepSpeed is told, differs.
    """
    _agree("precision", os.environ.get("ACCELERATE_MIXED_PRECISION", "no"), "run.precision", recipe.run.precision)
    if os.environ.get(USE_DEEPSPEED, "false").lower() != "true":
        return
    given, environment = deepspeed_settings(), os.environ
    for half in ("fp16", "bf16"):
        if given.get(half, {}).get("enabled") is True:
            _agree("precision", half, "run.precision", recipe.run.precision)
    for key in (key for key in _OF_RECIPES if key in given):
        raise ValueError(f"the file of DeepSpeed ({environment[_FILE]}) has {key}, which is the recipe's; take it out")
    accumulation = given.get(_ACCUMULATION, environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS"))
    clipping = given.get(_CLIPPING, environment.get("ACCELERATE_GRADIENT_CLIPPING"))
    _agree(_ACCUMULATION, accumulation, "optimizer.accumulation_steps", recipe.optimizer.accumulation_steps)
    _agree(_CLIPPING, clipping, "optimizer.clip_norm", recipe.optimizer.clip_norm)
    _agree(_BATCH, given.get(_BATCH), "data.batch_size", recipe.data.batch_size)
    _check_offload(given.get("zero_optimization", {}), asked_strategy() == "zero3", recipe)


def deepspeed_settings() -> dict[str, Any]:
    """Return the file of DeepSpeed that accelerate launch was given, without what it leaves open ("auto").

    Raises:
        ValueError: it is no JSON object.
    """
    path = os.environ.get(_FILE, "none")
    if os.environ.get(USE_DEEPSPEED, "false").lower() != "true" or path.lower() == "none":
        return {}
    try:
        read = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"the file of DeepSpeed that accelerate launch names cannot be read: {error}") from error
    if not isinstance(read, dict):
        raise ValueError(f"the file of DeepSpeed that accelerate launch names ({path}) holds no JSON object")
    return _decided(read)


def _decided(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _decided(value) if isinstance(value, dict) else value for key, value in settings.items() if value != "auto"
    }


def _agree(name: str, asked: object, key: str, own: object) -> None:
    """Refuse a setting of accelerate launch that differs; it may leave it open ("auto", "no", none)."""
    if asked is None or str(asked) in ("auto", "none", "no") or str(asked) == str(own):
        return
    if isinstance(own, int | float) and _number(asked) == own:
        return
    what = asked if name == "precision" else f"{name}={asked}"
    raise ValueError(
        f"accelerate launch asks for {what}, but the recipe has {key}={own}; write --set {key}={asked}, or take it out "
        "of the configuration of accelerate"
    )


def _number(asked: object) -> float | None:
    try:
        return float(str(asked))
    except ValueError:
        return None


def _check_offload(zero: dict[str, Any], splits_weights: bool, recipe: Recipe) -> None:
    """Refuse offload that is not the recipe's, which moves the optimizer and under ZeRO 3 the weights, too."""
    asked = {}
    for what, variable in (("optimizer", "OPTIMIZER"), ("param", "PARAM")):
        device = zero.get(f"offload_{what}", {}).get("device")
        asked[what] = device or os.environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{variable}_DEVICE", "none")
    whole = {"optimizer": "cpu", "param": "cpu"} if splits_weights else {"optimizer": "cpu", "param": "none"}
    expected = whole if recipe.parallel.offload else {"optimizer": "none", "param": "none"}
    if asked != expected:
        raise ValueError(
            f"accelerate launch asks to offload the optimizer to {asked['optimizer']} and parameters to "
            f"{asked['param']}, but the recipe has parallel.offload={str(recipe.parallel.offload).lower()}, which is "
            f"{expected['optimizer']} and {expected['param']}; change one of them"
        )
