"""Pictures in one folder for each class."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from internimage.data.dataset import Sample
from internimage.data.listing import list_files, list_folders
from internimage.data.pictures import read_picture

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


class ImageFolder:
    """Pictures in `root/<class>/**`, classes and files in alphabetical order.

    Args:
        root: folder with one folder for each class; other file types, and what is hidden at any depth, are left out,
            see `internimage.data.listing`.
        class_names: expected classes in the order of their indices, to give a validation folder the numbering of the
            training folder; None takes the folders found.

    Raises:
        FileNotFoundError: `root` is no folder.
        ValueError: there is no picture, or a folder is none of `class_names`.
    """

    def __init__(self, root: str | PathLike[str], class_names: tuple[str, ...] | None = None) -> None:
        self.root = Path(root)
        folders = list_folders(self.root)
        self._class_names = class_names if class_names is not None else tuple(folder.name for folder in folders)
        unknown = sorted({folder.name for folder in folders} - set(self._class_names))
        if unknown:
            raise ValueError(f"{self.root} holds folders that are no class of this data set: {', '.join(unknown[:10])}")
        index_of = {name: i for i, name in enumerate(self._class_names)}
        self.files: list[tuple[Path, int]] = [
            (path, index_of[folder.name]) for folder in folders for path in list_files(folder, PICTURE_SUFFIXES)
        ]
        if not self.files:
            raise ValueError(f"{self.root} holds no picture; expected {self.root}/<class>/<picture>.jpg or .png")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes: the folder names."""
        return self._class_names

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64 class indices."""
        return np.array([label for _, label in self.files], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample[int]:
        path, label = self.files[index]
        return Sample(read_picture(path), label, str(path))
