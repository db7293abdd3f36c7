"""Fashion-MNIST (and any data set in the same files) from its four idx files, packed or not.

Shape legend: N images, H W image size.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np

from internimage.data.dataset import Sample, SampleSource
from internimage.data.images.raster import RGB, Reading
from internimage.data.images.read import read_image
from internimage.data.labels import label_set

CLASS_NAMES = label_set("fashion_mnist_10").class_names
FILE_STEMS = {"train": "train", "val": "t10k"}
IMAGES_MAGIC, LABELS_MAGIC = 0x0803, 0x0801
MAX_BYTES = 1 << 30

Split = Literal["train", "val"]


class FashionMNIST:
    """The 60,000 training or 10,000 test images of clothes, 28x28 gray in 10 classes.

    Args:
        root: folder with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
            `t10k-labels-idx1-ubyte`, each with or without `.gz`.
        split: "train", or "val" for the test files.

    Raises:
        FileNotFoundError: a file is missing; the message names it.
        ValueError: a file is truncated, is no idx file, or holds labels outside of 0..9.

    Source: Xiao et al., Fashion-MNIST, arXiv 1708.07747.
    """

    class_names = CLASS_NAMES
    reading: Reading = RGB

    def __init__(self, root: str | PathLike[str], split: Split) -> None:
        if split not in FILE_STEMS:
            raise ValueError(f"split must be one of {', '.join(FILE_STEMS)}, given {split!r}")
        images_file = _find(Path(root), f"{FILE_STEMS[split]}-images-idx3-ubyte")
        labels_file = _find(Path(root), f"{FILE_STEMS[split]}-labels-idx1-ubyte")
        self.images = read_idx(images_file, magic=IMAGES_MAGIC)  # (N, H, W)
        self.labels = read_idx(labels_file, magic=LABELS_MAGIC)  # (N,)
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"{images_file} holds {len(self.images)} images but {labels_file} {len(self.labels)} labels"
            )
        if self.labels.size and self.labels.max() >= len(CLASS_NAMES):
            raise ValueError(f"{labels_file} holds the label {self.labels.max()}; expected 0..{len(CLASS_NAMES) - 1}")
        self._name = images_file.name

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample[int]:
        image = read_image(self.images[index], self.reading)
        return Sample(image, int(self.labels[index]), f"{self._name}#{index}")

    def source(self, index: int) -> SampleSource:
        """Return the content of an image and its class; packed files are the same as unpacked ones."""
        name = f"{self._name.removesuffix('.gz')}#{index}"
        return SampleSource(self.images[index].tobytes(), self.labels[index].tobytes(), name)


def is_fashion_mnist(root: str | PathLike[str]) -> bool:
    """Whether a folder holds idx files under the names of Fashion-MNIST."""
    return any(Path(root, f"{stem}-labels-idx1-ubyte{end}").is_file() for stem in FILE_STEMS.values() for end in _ENDS)


def read_idx(path: Path, *, magic: int) -> np.ndarray:
    """Read the uint8 array of an idx file, also one packed with gzip (.gz): (N,) for labels, (N, H, W) for images.

    `magic` is what the first four bytes must be; the last of them is the number of axes.

    Raises:
        ValueError: the file is truncated, damaged, too long, or does not start with `magic`.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is damaged or not complete ({error}); copy it again") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} unpacks to more than {MAX_BYTES} bytes, which no file of this data set does")
    num_axes = magic & 0xFF
    if len(content) < 4 + 4 * num_axes:
        raise ValueError(f"{path} ends within its header ({len(content)} bytes); copy it again")
    found, *shape = struct.unpack(f">{1 + num_axes}I", content[: 4 + 4 * num_axes])
    if found != magic:
        raise ValueError(f"{path} is not the expected idx file: it starts with 0x{found:08x}, expected 0x{magic:08x}")
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * num_axes)
    expected = int(np.prod(shape, dtype=np.float64))
    if values.size != expected:
        raise ValueError(f"{path} announces {expected} bytes of shape {tuple(shape)} but holds {values.size}")
    return values.reshape(shape)


_ENDS = ("", ".gz")


def _find(root: Path, name: str) -> Path:
    for end in _ENDS:
        if (path := root / (name + end)).is_file():
            return path
    raise FileNotFoundError(f"{root} holds neither {name} nor {name}.gz")
