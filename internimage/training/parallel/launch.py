"""How the processes of a run come to be: each by itself under torchrun and the like, all of them by `run_processes`."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import torch
import torch.distributed as dist

from internimage import parallel
from internimage.errors import MissingExtra
from internimage.files import locked
from internimage.processors import usable_processors
from internimage.recipe import Recipe
from internimage.training.device import Engine
from internimage.training.parallel.engine import ParallelEngine
from internimage.training.parallel.fsdp import ShardedEngine

logger = logging.getLogger("internimage.training")
# How torch tells that another process has gone, besides by the class of the error.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Socket Timeout")


def launched_processes() -> int:
    """Return how many processes were started to train together (torchrun, accelerate launch, `train --processes`)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """Return the index of this process among them; the first one writes the files of a run."""
    return int(os.environ.get("RANK", "0")) if launched_processes() > 1 else 0


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
        if launched_processes() > 1:
            at_end.push(_name_process)
        try:
            yield is_first
        except RuntimeError as error:
            if not (isinstance(error, dist.DistError) or any(text in str(error) for text in _LOST)):
                raise
            raise ConnectionError(
                "another process has ended or did not answer in time (parallel.timeout_minutes); its own message says "
                f"why. The last saved state stays. ({str(error).splitlines()[0]})"
            ) from error


def _name_process(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
    """Say which process an error ends; it goes on."""
    if error is not None:
        logger.error("process %d of %d: %s: %s", process_index(), launched_processes(), type(error).__name__, error)
    return False


def run_processes(arguments: Sequence[str], processes: int, *, on_cpu: bool) -> int:
    """Run a command of `internimage` in several processes of this machine that train together, and wait for them.

    Where one of them fails, the others are asked to end, and made to after 30 seconds; so it goes with SIGTERM and
    Ctrl-C, at which they save the run.

    Args:
        arguments: of the command line of each process.
        processes: how many; one for each accelerator, if there are any.
        on_cpu: whether they leave accelerators alone.

    Returns:
        Exit code of the first one that failed, else 0.

    Raises:
        ValueError: there are fewer accelerators than processes.
        MissingExtra: accelerate is not installed.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtra("accelerate", "train", "training in several processes")
    devices = 0 if on_cpu else torch.cuda.device_count()
    if devices and processes > devices:
        raise ValueError(
            f"{processes} processes need as many accelerators, and this machine has {devices}; give at most that many, "
            "or --device cpu"
        )
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_processors() // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "internimage", *arguments)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0
