"""How the processes of a run share the work: which engine each has, by the recipe and by what started them."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from internimage import parallel
from internimage.errors import MissingExtra
from internimage.files import locked
from internimage.launch import launched_processes, process_index, run_processes, told_of_losses
from internimage.recipe import Recipe
from internimage.training.device import Engine
from internimage.training.parallel.accelerate_settings import asked_strategy, check_agreement
from internimage.training.parallel.engine import ParallelEngine
from internimage.training.parallel.fsdp import ShardedEngine
from internimage.training.parallel.zero import STAGES, ZeroEngine

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
    if strategy in STAGES:
        return ZeroEngine(device, recipe, STAGES[strategy])
    return ShardedEngine(device, recipe) if strategy == "fsdp" else ParallelEngine(device, recipe)


def chosen_strategy(recipe: Recipe) -> str:
    """Return how the processes share the work, by the recipe and by what accelerate launch was told.

    Raises:
        ValueError: they contradict each other, or settings do not go together.
        MissingExtra: it needs a package that is not installed.
    """
    settings, asked = recipe.parallel, asked_strategy()
    if asked is not None and settings.strategy not in ("auto", asked):
        raise ValueError(
            f"accelerate launch asks for {asked}, but the recipe has parallel.strategy={settings.strategy}; change one "
            "of them, or leave it to accelerate with parallel.strategy=auto"
        )
    strategy = (asked or "ddp") if settings.strategy == "auto" else settings.strategy
    if settings.offload and strategy == "ddp":
        raise ValueError(
            "parallel.offload=true goes with parallel.strategy=fsdp, given ddp, which keeps everything; zero1 to zero3 "
            "have it, too"
        )
    if settings.gradient_compression != "none" and strategy != "ddp":
        raise ValueError(
            f"parallel.gradient_compression={settings.gradient_compression} goes with parallel.strategy=ddp, given "
            f"{strategy}"
        )
    if recipe.run.precision == "fp16" and strategy == "fsdp":
        raise ValueError("run.precision=fp16 goes with parallel.strategy=ddp, given fsdp; take bf16, or zero1 to zero3")
    if recipe.run.compile != "false" and strategy != "ddp":
        raise ValueError(
            f"run.compile={recipe.run.compile} goes with parallel.strategy=ddp, given {strategy}, whose parameters "
            "come and go while a block is computed; train with run.compile=false"
        )
    check_agreement(recipe)
    if strategy in STAGES and importlib.util.find_spec("deepspeed") is None:
        raise MissingExtra("deepspeed", "deepspeed", f"parallel.strategy={strategy}")
    return strategy


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
