from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.threads import one_thread as one_thread
from tests.training.scenes import write_scenes

PARITY = Path(__file__).parents[1] / "parity" / "data" / "training"


@pytest.fixture(scope="session")
def recorded() -> Any:
    """Arrays that the original training code left behind."""
    with np.load(PARITY / "classification_training.npz") as arrays:
        return dict(arrays)


def recorded_json(name: str) -> Any:
    return json.loads(gzip.decompress((PARITY / name).read_bytes()))


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape)
    content = header + values.astype(np.uint8).tobytes()
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


@pytest.fixture(scope="session")
def tiny_fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 training and 24 test images in the files of Fashion-MNIST; the class decides which rows are bright."""
    root = tmp_path_factory.mktemp("fashion")
    rng = np.random.default_rng(0)
    for part, count in (("train", 72), ("t10k", 24)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 60, (count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 3 : 2 * label + 7] += 190
        write_idx(root / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(root / f"{part}-labels-idx1-ubyte", labels)
    return root


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 training and 4 validation scenes of 64 pixels, see `write_scenes`; not to be changed."""
    return write_scenes(tmp_path_factory.mktemp("scenes") / "data")


# Small enough that an epoch takes a second: 3 steps of 16 images with 32 pixels.
TINY = (
    "data.size=32",
    "data.batch_size=16",
    "data.holdout=16",
    "schedule.epochs=3",
    "run.precision=fp32",
    "run.tensorboard=false",
    "run.plot=false",
    "optimizer.lr_per_512=0.05",
)
