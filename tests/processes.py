"""Being one of several processes without the others."""

from __future__ import annotations

from typing import Any

import pytest

from internimage import parallel


def be_process(monkeypatch: pytest.MonkeyPatch, rank: int, *, of: int) -> None:
    """Let this process count as one of several that train together; what needs the others cannot be called."""
    group: Any = None
    monkeypatch.setattr(parallel, "_team", parallel._Team(rank, of, group))
