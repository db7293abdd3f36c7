"""A hint where a run is slow because other programs keep the processors busy."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from internimage.processors import load, usable_processors

logger = logging.getLogger(__name__)
FEWEST_STEPS = 3
# Wall time over processor time from which on a run waits more than it works; with several threads it is below 1.
WAITING = 2.0


class BusyHint:
    """Compares the time that steps take with the processor time that they use, and says once when they wait.

    Args:
        device: where the steps are computed; nothing is said of an accelerator.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_said = device.type != "cpu"
        self.wall = self.processor = 0.0
        self.steps = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count a step."""
        wall, processor = time.monotonic(), time.process_time()
        yield
        self.wall += time.monotonic() - wall
        self.processor += time.process_time() - processor
        self.steps += 1
        self._say()

    def _say(self) -> None:
        busy = load()
        if self._is_said or self.steps < FEWEST_STEPS or busy is None or busy <= usable_processors():
            return
        if self.wall < WAITING * self.processor:
            return
        self._is_said = True
        threads, sleeps = torch.get_num_threads(), os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
        advice = (
            "" if threads == 1 or sleeps else "; run.threads=1, or OMP_WAIT_POLICY=PASSIVE in the environment, may help"
        )
        logger.warning(
            "a step takes %.2g s but uses %.2g s of processor time: %.0f programs want the %d processors%s",
            self.wall / self.steps,
            self.processor / self.steps,
            busy,
            usable_processors(),
            advice,
        )
