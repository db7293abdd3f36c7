"""How a run is stopped from its terminal: Ctrl-C and SIGTERM."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)


class StopEvent(threading.Event):
    """Set when a run is to stop.

    Attributes:
        signal: number of the signal that asked for it, None before.
    """

    signal: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopEvent]:
    """Give an event that Ctrl-C or SIGTERM sets within the block; a second one raises KeyboardInterrupt.

    Outside of the main thread signals cannot be caught, and the event stays unset.
    """
    stop = StopEvent()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
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
