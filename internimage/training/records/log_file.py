"""log.txt of a run: what it says, whether or not a terminal shows it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from internimage.training.display import LOGGER, log_on_terminal
from internimage.training.state import RECIPE_FILE

LOG_FILE = "log.txt"
PACKAGE = "internimage"


class _File(logging.FileHandler):
    """Writes each record once, although two loggers give it; where the disk is full, saving the state says so.

    A run that is refused leaves nothing behind: records wait until the folder holds its recipe.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / LOG_FILE, delay=True, encoding="utf-8")
        self._recipe, self._waiting = folder / RECIPE_FILE, list[logging.LogRecord]()
        self._last: logging.LogRecord | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and what has waited."""
        if record is self._last:
            return
        self._last = record
        self._waiting.append(record)
        if self.stream is not None or self._recipe.exists():
            while self._waiting:
                super().emit(self._waiting.pop(0))

    def handleError(self, record: logging.LogRecord) -> None:
        """Go on without the line."""

    def close(self) -> None:
        """Close the file; lines that found no space are lost."""
        with contextlib.suppress(OSError):
            super().close()


class _Upwards(logging.Handler):
    """Gives records to the loggers above, as if the level of the one below had never been lowered."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on."""
        logging.getLogger(PACKAGE).handle(record)


@contextlib.contextmanager
def run_log(folder: Path, *, progress: bool, is_first: bool) -> Iterator[None]:
    """Let the first process show the log of training on a terminal, and write it to log.txt, within the block.

    Warnings of the rest of the package, and what ends the block, are written, too. What else shows the log shows what
    it would have shown.

    Args:
        folder: of the run.
        progress: whether a terminal shows anything.
        is_first: whether this is the first process.
    """
    with contextlib.ExitStack() as at_end:
        at_end.enter_context(log_on_terminal(shown=progress and is_first))
        if is_first:
            _add_file(folder, at_end)
        yield


def _add_file(folder: Path, at_end: contextlib.ExitStack) -> None:
    training, package = logging.getLogger(LOGGER), logging.getLogger(PACKAGE)
    file, upwards = _File(folder), _Upwards()
    shown = training.getEffectiveLevel()
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    at_end.callback(file.close)
    upwards.setLevel(shown)
    for handler in training.handlers:
        at_end.callback(handler.setLevel, handler.level)
        handler.setLevel(max(shown, handler.level))
    at_end.callback(training.setLevel, training.level)
    training.setLevel(min(shown, logging.INFO))
    for logger, handler in ((training, file), (training, upwards), (package, file)):
        logger.addHandler(handler)
        at_end.callback(logger.removeHandler, handler)
    at_end.callback(setattr, training, "propagate", training.propagate)
    training.propagate = False

    def note(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if kind is not None:
            file.handle(training.makeRecord(LOGGER, logging.ERROR, "", 0, f"{kind.__name__}: {error}", (), None))
        return False

    at_end.push(note)
