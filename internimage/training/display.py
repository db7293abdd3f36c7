"""What a run shows on a terminal: steps, loss and rate with the remaining time; validation; the log above them."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from internimage import parallel

# Seconds over which the speed is averaged: a step may take many seconds, and validation lies between two epochs.
SPEED_PERIOD = 600.0
# Seconds between two looks at the loss, each of which waits for an accelerator.
LOSS_PERIOD = 1.0
LOGGER = "internimage.training"
logger = logging.getLogger(__name__)


class RunDisplay:
    """The bars of a run; nothing is shown, and no loss is read, where they are hidden.

    Args:
        bars: where they are drawn.
        total: steps of the run.
        completed: steps that are done.
    """

    def __init__(self, bars: Progress, total: int, completed: int) -> None:
        self._bars, self._next_look = bars, 0.0
        first = "reads the first batch, compiles and measures what is new; then the time is known"
        self._steps: TaskID = bars.add_task("train", total=total, completed=completed, what="start", figures=first)

    def step(self, done: int, epoch: str, loss: Callable[[], float], lr: float) -> None:
        """Show that a step is done.

        Args:
            done: steps of the run that are done.
            epoch: number of the epoch and of all epochs, such as "2/10".
            loss: gives the mean loss since the last validation.
            lr: learning rate of the step.
        """
        if self._bars.disable:
            return
        if time.monotonic() >= self._next_look:
            self._bars.update(self._steps, figures=f"loss {loss():.4g}, lr {lr:.2g}")
            self._next_look = time.monotonic() + LOSS_PERIOD
        self._bars.update(self._steps, completed=done, what=f"epoch {epoch}")

    @contextmanager
    def validation(self) -> Iterator[Callable[[int, int], None]]:
        """Show a bar of its own within the block; gives a function to call with (images done, images in all)."""
        task = self._bars.add_task("validate", total=None, what="validation", figures="")
        try:
            yield lambda done, total: self._bars.update(task, completed=done, total=total)
        finally:
            self._bars.remove_task(task)

    def saved(self, figures: str) -> None:
        """Show what the last validation measured, now that it is saved."""
        self._bars.update(self._steps, figures=f"{figures}, saved {time.strftime('%H:%M:%S')}")
        self._next_look = time.monotonic() + LOSS_PERIOD


@contextmanager
def run_display(total: int, *, completed: int, shown: bool) -> Iterator[RunDisplay]:
    """Show the progress of a run on stderr while a terminal is there.

    Args:
        total: steps of the run.
        completed: steps that are done already.
        shown: whether to show anything.
    """
    columns = (
        TextColumn("{task.fields[what]}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    console = Console(stderr=True)
    hidden = not (shown and console.is_terminal)
    with Progress(*columns, console=console, disable=hidden, speed_estimate_period=SPEED_PERIOD) as bars:
        yield RunDisplay(bars, total, completed)


class _Lines(logging.Handler):
    """Writes log lines to what stderr is at that moment, above the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        sys.stderr.write(self.format(record) + "\n")


@contextmanager
def log_on_terminal(*, shown: bool) -> Iterator[None]:
    """Let the log of training appear on a terminal within the block, unless the program has set up its logging.

    Args:
        shown: whether to show anything.
    """
    logger = logging.getLogger(LOGGER)
    if not shown or logger.hasHandlers() or not sys.stderr.isatty():
        yield
        return
    handler, level = _Lines(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class StopEvent(threading.Event):
    """Set when a run is to stop.

    Attributes:
        signal: number of the signal that asked for it, None before.
    """

    signal: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopEvent]:
    """Give an event that Ctrl-C or SIGTERM sets within the block; a second one raises KeyboardInterrupt.

    Several processes get one signal many times, from the terminal and from what started them; they count it once.

    Outside of the main thread signals cannot be caught, and the event stays unset.
    """
    stop = StopEvent()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            if parallel.world() > 1:
                return
            raise KeyboardInterrupt
        logger.warning("stopping after this step; once more to stop at once, without saving")
        stop.signal = number
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
