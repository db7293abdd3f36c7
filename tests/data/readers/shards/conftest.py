from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

Write = Callable[[str, Mapping[str, bytes]], Path]


def jpeg(seed: int, size_wh: tuple[int, int] = (40, 30)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size_wh[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Class folders of three classes: 4 + 5 + 3 training images and 1 + 1 + 1 for validation."""
    root = tmp_path / "folders"
    names = [f"train/{name}/{i}.jpg" for name, count in (("ant", 4), ("bee", 5), ("cat", 3)) for i in range(count)]
    for seed, name in enumerate([*names, "val/ant/x.jpg", "val/bee/x.jpg", "val/cat/x.jpg"]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(seed))
    return root


@pytest.fixture
def tar(tmp_path: Path) -> Write:
    """Return a function that writes a tar file of these files."""

    def write(name: str, files: Mapping[str, bytes]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for file, content in files.items():
                info = tarfile.TarInfo(file)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path

    return write
