"""How the processes of a run share the work: which engine each has, by the recipe and by what started them."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from internimage import parallel
from internimage.errors import MissingExtra
from internimage.files import locked
from internimage.launch import launched_processes, process_index, run_processes, told_of_losses
from internimage.recipe import Recipe
from internimage.training.device import Engine
from internimage.training.parallel.engine import ParallelEngine
from internimage.training.parallel.fsdp import ShardedEngine

logger = logging.getLogger("internimage.training")


def build_engine(device: torch.device, recipe: Recipe) -> Engine:
    """Return what runs the steps of this process.

    Args:
        device: where it computes.
        recipe: every setting of the run.

    Raises:
        ValueError: settings do not go together, or with what accelerate launch was told.
    """
    strategy = chosen_strategy(recipe)
    if launched_processes() == 1:
        if strategy != "ddp":
            logger.warning("parallel.strategy=%s is for several processes; a single one keeps everything", strategy)
        return Engine(device, recipe)
    return ShardedEngine(device, recipe) if strategy == "fsdp" else ParallelEngine(device, recipe)


def chosen_strategy(recipe: Recipe) -> str:
    """Return how the processes share the work, by the recipe and by what accelerate launch was told.

    Raises:
        ValueError: they contradict each other, or settings do not go together.
    """
    settings, asked = recipe.parallel, _asked_by_accelerate()
    if asked is not None and settings.strategy not in ("auto", asked):
        raise ValueError(
            f"accelerate launch asks for {asked}, but the recipe has parallel.strategy={settings.strategy}; change one "
            "of them, or leave it to accelerate with parallel.strategy=auto"
        )
    strategy = (asked or "ddp") if settings.strategy == "auto" else settings.strategy
    if settings.offload and strategy == "ddp":
        raise ValueError("parallel.offload=true goes with parallel.strategy=fsdp, given ddp, which keeps everything")
    if settings.gradient_compression != "none" and strategy != "ddp":
        raise ValueError(
            f"parallel.gradient_compression={settings.gradient_compression} goes with parallel.strategy=ddp, given "
            f"{strategy}"
        )
    if recipe.run.precision == "fp16" and strategy != "ddp":
        raise ValueError(f"run.precision=fp16 goes with parallel.strategy=ddp, given {strategy}; take bf16")
    if recipe.run.compile != "false" and strategy != "ddp":
        raise ValueError(
            f"run.compile={recipe.run.compile} goes with parallel.strategy=ddp, given {strategy}, whose parameters "
            "come and go while a block is computed; train with run.compile=false"
        )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no" and precision != recipe.run.precision:
        raise ValueError(
            f"accelerate launch asks for {precision}, but the recipe has run.precision={recipe.run.precision}; write "
            f"--set run.precision={precision}, or take it out of the configuration of accelerate"
        )
    return strategy


def _asked_by_accelerate() -> str | None:
    """Return the strategy of the configuration of accelerate launch, None where it has none."""
    environment = os.environ
    if environment.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ValueError(
            "accelerate launch asks for DeepSpeed, which this package does not use; take its FSDP 2, or "
            "parallel.strategy=fsdp, which shards parameters, gradients and moments as ZeRO 3 does"
        )
    if environment.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    if environment.get("FSDP_VERSION", "1") != "2":
        raise ValueError("accelerate launch asks for FSDP 1; set fsdp_version: 2 in its configuration")
    return "fsdp"


@contextlib.contextmanager
def one_of_the_processes(lock: Path) -> Iterator[bool]:
    """Be one of the processes of a run within the block; gives whether this is the first of them.

    The first one holds the lock of the run and tells what happens; the others tell of warnings and of their end.

    Args:
        lock: file in the folder of the run.

    Raises:
        BlockingIOError: another run works in the folder.
        ConnectionError: another process has ended, or did not answer in time.
    """
    is_first, level = process_index() == 0, logger.level
    with contextlib.ExitStack() as at_end:
        at_end.callback(parallel.leave)
        at_end.callback(logger.setLevel, level)
        if is_first:
            at_end.enter_context(locked(lock))
        else:
            logger.setLevel(logging.WARNING)
        at_end.enter_context(told_of_losses("The last saved state stays.", setting="parallel.timeout_minutes"))
        yield is_first


def train_in_processes(arguments: Sequence[str], processes: int, *, on_cpu: bool) -> int:
    """Train in several processes of this machine, see `internimage.launch.run_processes`.

    Raises:
        MissingExtra: accelerate is not installed.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtra("accelerate", "train", "training in several processes")
    return run_processes(arguments, processes, on_cpu=on_cpu)
