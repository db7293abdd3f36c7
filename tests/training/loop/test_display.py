"""What a terminal shows of a run."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from internimage.training import display
from internimage.training.display import log_on_terminal, run_display


class Terminal(io.StringIO):
    """Keeps what is written to a terminal."""

    def isatty(self) -> bool:
        return True


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal in the place of stderr; not in a fixture, after which pytest would put back its own."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys, "stderr", fake := Terminal())
    return fake


def test_a_terminal_shows_loss_rate_metric_and_what_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    monkeypatch.setattr(display, "LOSS_PERIOD", 0.0)
    with run_display(6, completed=0, shown=True) as bars:
        bars.step(1, "1/2", lambda: 0.51234, 1.5e-4)
        bars._bars.refresh()
        with bars.validation() as progress:
            progress(3, 10)
            bars._bars.refresh()
        bars.saved("loss 0.4, val_miou 61.20%")
    shown = terminal.getvalue()
    assert "first batch" in shown and "loss 0.5123, lr 0.00015" in shown
    assert "epoch 1/2" in shown and "1/6" in shown
    assert "validation" in shown and "3/10" in shown
    assert "val_miou 61.20%, saved" in shown


def test_a_log_file_shows_no_bar_and_reads_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    with run_display(6, completed=0, shown=True) as bars:
        bars.step(1, "1/2", lambda: pytest.fail("a hidden bar needs no loss"), 1e-3)
        with bars.validation() as progress:
            progress(1, 2)
        bars.saved("loss 0.4")
    assert file.getvalue() == ""


def test_a_script_on_a_terminal_sees_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    logger = logging.getLogger("internimage.training")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger("internimage"), "handlers", [])
    with log_on_terminal(shown=False):
        logger.info("hidden")
    level = logger.level
    with log_on_terminal(shown=True):
        logger.info("starts from: random weights")
    assert terminal.getvalue() == "starts from: random weights\n"
    assert not logger.handlers and logger.level == level
    logging.getLogger("internimage").addHandler(logging.NullHandler())
    with log_on_terminal(shown=True):
        logger.info("the program has its own logging")
    assert terminal.getvalue() == "starts from: random weights\n"
