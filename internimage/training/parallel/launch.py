"""Which engine a process gets, by how it was started: alone, or as one of several."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from internimage import parallel
from internimage.files import locked
from internimage.recipe import Recipe
from internimage.training.device import Engine
from internimage.training.parallel.engine import ParallelEngine

logger = logging.getLogger("internimage.training")


def launched_processes() -> int:
    """Return how many processes were started to train together (torchrun, accelerate launch, `train --processes`)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """Return the index of this process among them; the first one writes the files of a run."""
    return int(os.environ.get("RANK", "0")) if launched_processes() > 1 else 0


@contextlib.contextmanager
def one_of_the_processes(lock: Path) -> Iterator[bool]:
    """Be one of the processes of a run within the block; gives whether this is the first of them.

    The first one holds the lock of the run and tells what happens; the others tell of warnings and of their end.

    Args:
        lock: file in the folder of the run.

    Raises:
        BlockingIOError: another run works in the folder.
    """
    is_first, level = process_index() == 0, logger.level
    try:
        with locked(lock) if is_first else contextlib.nullcontext():
            if not is_first:
                logger.setLevel(logging.WARNING)
            yield is_first
    finally:
        logger.setLevel(level)
        parallel.leave()


def build_engine(device: torch.device, recipe: Recipe) -> Engine:
    """Return what runs the steps of this process.

    Args:
        device: where it computes.
        recipe: every setting of the run.
    """
    return ParallelEngine(device, recipe) if launched_processes() > 1 else Engine(device, recipe)
