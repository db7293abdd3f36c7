"""DeepSpeed as the engines of ZeRO take it: imported, quiet, without a compiler, and with the settings of a recipe."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from internimage.errors import MissingExtra
from internimage.recipe import Recipe
from internimage.training.parallel.accelerate_settings import USE_DEEPSPEED, deepspeed_settings


def settings_of(recipe: Recipe, stage: int, *, pinned: bool) -> dict[str, Any]:
    """Return the settings of DeepSpeed: those of the recipe, and what a file of accelerate has beside them."""
    zero: dict[str, Any] = {"stage": stage}
    if recipe.parallel.offload:
        for what in ("offload_optimizer", "offload_param")[: 2 if stage == 3 else 1]:
            zero[what] = {"device": "cpu", "pin_memory": pinned}
    given = deepspeed_settings()
    return {
        **given,
        "train_micro_batch_size_per_gpu": recipe.data.batch_size,
        "gradient_accumulation_steps": recipe.optimizer.accumulation_steps,
        "gradient_clipping": recipe.optimizer.clip_norm,
        "zero_optimization": {**given.get("zero_optimization", {}), **zero},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's own is as fast and needs no compiler
    }


def imported(device: torch.device) -> Any:
    """Return the module of DeepSpeed, which is told where to compute before it is imported."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Dd]istutils")
            import deepspeed  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise MissingExtra("deepspeed", "deepspeed", "training with ZeRO") from error
    # Reduces in memory that processes share, and would be compiled at first use; gloo does without.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    for handler in deepspeed.utils.logger.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)  # results alone go to stdout
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    return deepspeed


@contextlib.contextmanager
def without_deepspeed_of_accelerate() -> Iterator[None]:
    """Keep accelerate from setting DeepSpeed up by itself, from its own file alone."""
    asked = os.environ.pop(USE_DEEPSPEED, None)
    try:
        yield
    finally:
        if asked is not None:
            os.environ[USE_DEEPSPEED] = asked
