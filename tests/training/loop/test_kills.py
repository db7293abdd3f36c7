"""Runs that are killed anywhere go on as if they had not been, bit for bit."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.parallel.processes import finished, start

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files, and forks"),
]
WORKER = Path(__file__).with_name("killing.py")


def killed(folder: Path, data: Path, *, processes: int, points: int) -> list[dict[str, Any]]:
    finished(start(WORKER, folder, data, processes, points), limit=1800)
    return json.loads((folder / "found.json").read_text(encoding="utf-8"))


def test_twenty_points(tiny_fashion: Path, tmp_path: Path) -> None:
    found = killed(tmp_path, tiny_fashion, processes=1, points=20)
    assert len({entry["point"] for entry in found}) == 20
    assert {entry["signal"] for entry in found} >= {signal.SIGKILL, signal.SIGXFSZ}
    assert {entry["step"] for entry in found} >= {0, 1, 2, 3, 4, 5}
    assert any(name.startswith(".state.pt") for entry in found for name in entry["left"])


def test_two_processes(tiny_fashion: Path, tmp_path: Path) -> None:
    found = killed(tmp_path, tiny_fashion, processes=2, points=3)
    assert {entry["signal"] for entry in found} >= {signal.SIGKILL, signal.SIGXFSZ}
