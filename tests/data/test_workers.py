from __future__ import annotations

import os
from pathlib import Path

import pytest

from internimage.data import workers


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", 4), ("150000 100000", 2), ("20000 100000", 1), ("800000 100000", 4), ("", 4)]
)
def test_workers_are_bounded_by_the_processors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    monkeypatch.setattr(workers, "QUOTA", tmp_path / "cpu.max")
    if limit:
        (tmp_path / "cpu.max").write_text(limit + "\n")
    assert workers.usable_processors() == expected
    assert workers.bounded_workers(8) == expected
    assert workers.bounded_workers(0) == 0
