"""What every test shares: fixed seeds, a log as it was, poisoned uninitialized memory, and what ran where."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from _pytest.terminal import TerminalReporter

from internimage.ops.runtime import library


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """The command line sets up the log of its process; in a test that would reach all tests behind it."""
    own = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] == "internimage"]
    before = {logger: (logger.level, list(logger.handlers), logger.propagate) for logger in own}
    yield
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "internimage":
            logger = logging.getLogger(name)
            level, handlers, logger.propagate = before.get(logger, (logging.NOTSET, [], True))
            logger.setLevel(level)
            logger.handlers[:] = handlers


@pytest.fixture
def poisoned_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what `torch.empty` and its kin return with NaN, so that an unwritten output cannot pass a comparison."""

    def poison(name: str) -> None:
        original = getattr(torch, name)

        def filled(*args: object, **kwargs: object) -> torch.Tensor:
            tensor = original(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() and tensor.device.type != "meta" else tensor

        monkeypatch.setattr(torch, name, filled)

    for name in ("empty", "empty_like"):
        poison(name)


def pytest_report_header() -> list[str]:
    """Say what decides which tests can run here."""
    kernels = library.missing_reason() or library.instruction_set()
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"kernels: {kernels}; torch {torch.__version__}: {torch.backends.cpu.get_cpu_capability()}; GPUs: {gpus}"]


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Count what was skipped by its reason: what this machine cannot run."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ()))
    if reasons:
        terminalreporter.section("skipped here, by reason")
    for reason, number in reasons.most_common():
        terminalreporter.line(f"{number:5d}  {reason.removeprefix('Skipped: ')}")
