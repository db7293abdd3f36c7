from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from internimage import processors


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", 4), ("150000 100000", 2), ("20000 100000", 1), ("800000 100000", 4), ("", 4)]
)
def test_workers_are_bounded_by_the_processors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    monkeypatch.setattr(processors, "QUOTA", tmp_path / "cpu.max")
    if limit:
        (tmp_path / "cpu.max").write_text(limit + "\n")
    assert processors.usable_processors() == expected
    assert processors.bounded_workers(8) == expected
    assert processors.bounded_workers(0) == 0


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not imported torch and whose user has decided nothing."""
    monkeypatch.delitem(sys.modules, "torch")
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.setenv(name, "")  # so that what the test sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(processors, "usable_processors", lambda: 4)


@pytest.mark.usefixtures("fresh")
def test_threads_sleep_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1.9, 9.0, 9.0))
    assert not processors.let_threads_sleep() and "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.setattr(os, "getloadavg", lambda: (2.1, 0.0, 0.0))
    assert processors.let_threads_sleep()
    assert (os.environ["GOMP_SPINCOUNT"], os.environ["OMP_WAIT_POLICY"]) == ("0", "PASSIVE")


@pytest.mark.usefixtures("fresh")
def test_a_choice_of_the_user_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 9.0, 9.0))
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert not processors.let_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE" and "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.usefixtures("fresh")
def test_it_is_too_late_when_torch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 9.0, 9.0))
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert not processors.let_threads_sleep()
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delattr(os, "getloadavg")
    assert processors.load() is None and not processors.let_threads_sleep()
