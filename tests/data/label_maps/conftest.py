from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write an image, or a mask of given values; return the root."""

    def write(name: str, values: np.ndarray | None = None, size: tuple[int, int] = (6, 8)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.full((*size, 3), 90, dtype=np.uint8) if values is None else values
        PIL.Image.fromarray(array).save(path)
        return tmp_path

    return write


@pytest.fixture
def mask() -> Callable[..., np.ndarray]:
    """Return a (6, 8) mask that holds the given values in turn."""
    return lambda *values: np.resize(np.array(values, dtype=np.uint8), (6, 8))
