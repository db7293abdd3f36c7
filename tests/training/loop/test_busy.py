from __future__ import annotations

import itertools

import pytest
import torch

from internimage.training import meters as busy
from internimage.training.meters import BusyHint


def run(monkeypatch: pytest.MonkeyPatch, *, wall: float, processor: float, load: float, device: str = "cpu") -> None:
    """Time five steps."""
    clocks = {"monotonic": itertools.count(0, wall), "process_time": itertools.count(0, processor)}
    for name, clock in clocks.items():
        monkeypatch.setattr(busy.time, name, lambda clock=clock: next(clock))
    monkeypatch.setattr(busy, "load", lambda: load)
    monkeypatch.setattr(busy, "usable_processors", lambda: 2)
    hint = BusyHint(torch.device(device))
    for _ in range(5):
        with hint.timed():
            pass


def test_steps_that_wait_for_other_programs_are_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    run(monkeypatch, wall=7.0, processor=1.7, load=14.6)
    [record] = caplog.records
    assert record.getMessage() == (
        "a step takes 7 s but uses 1.7 s of processor time: 15 programs want the 2 processors; run.threads=1, "
        "or OMP_WAIT_POLICY=PASSIVE in the environment, may help"
    )


@pytest.mark.parametrize(
    ("wall", "processor", "load", "device"),
    [(7.0, 1.7, 1.0, "cpu"), (1.0, 1.9, 14.0, "cpu"), (7.0, 1.7, 14.0, "cuda")],
    ids=["waits for files", "works", "accelerator"],
)
def test_nothing_is_said_of_other_steps(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wall: float,
    processor: float,
    load: float,
    device: str,
) -> None:
    run(monkeypatch, wall=wall, processor=processor, load=load, device=device)
    assert not caplog.records
