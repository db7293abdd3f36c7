"""The scripts of this folder run on their own; only `test_*.py` is for pytest, doctests included."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

collect_ignore_glob = ["runners/*", "run_case.py", "compare.py", "seeding.py"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Call the main function of a script of this folder, which is quicker than another process."""
    monkeypatch.syspath_prepend(Path(__file__).parent)

    def call(script: str, *arguments: Path | str) -> int:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        return importlib.import_module(script).main()

    return call
