"""Images in one folder for each class."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from internimage.data.class_names import NONE, place_names, some_names
from internimage.data.dataset import Sample, SampleSource
from internimage.data.images.formats import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from internimage.data.images.raster import RGB, Reading
from internimage.data.images.read import read_image
from internimage.data.listing import list_files, list_folders, list_images


class ImageFolder:
    """Images in `root/<class>/**`, classes and files in alphabetical order.

    Args:
        root: folder with one folder for each class; other file types, and what is hidden at any depth, are left out,
            see `internimage.data.listing`.
        class_names: expected classes in the order of their indices, to give a validation folder the numbering of the
            training folder, see `internimage.data.class_names`; None takes the folders found.

    Raises:
        FileNotFoundError: `root` is no folder.
        ValueError: there is no image, or a folder is none of `class_names`.
    """

    reading: Reading = RGB

    def __init__(self, root: str | PathLike[str], class_names: tuple[str, ...] | None = None) -> None:
        self.root = Path(root)
        folders = list_folders(self.root)
        self.class_names = class_names if class_names is not None else tuple(folder.name for folder in folders)
        labels = place_names([folder.name for folder in folders], self.class_names)
        unknown = [folder.name for folder, label in zip(folders, labels, strict=True) if label == NONE]
        if unknown:
            raise ValueError(
                f"{self.root} holds folders that are no class of this data set: {some_names(unknown)}; its classes are "
                f"{some_names(self.class_names)}"
            )
        self.files: list[tuple[Path, int]] = [
            (path, label) for folder, label in zip(folders, labels, strict=True) for path in list_images(folder)
        ]
        if not self.files:
            text = f"{self.root} holds no image; expected {self.root}/<class>/<image>.jpg or .png"
            if list_files(self.root, IMAGE_SUFFIXES, recursive=False):
                text += ". Images lie in the folder itself: if it is one class, give the folder that holds it"
            raise ValueError(text)

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64 class indices."""
        return np.array([label for _, label in self.files], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample[int]:
        path, label = self.files[index]
        return Sample(read_image(path, self.reading), label, str(path))

    def source(self, index: int) -> SampleSource:
        """Return the file of an image and the name of its class."""
        path, label = self.files[index]
        return SampleSource(path, self.class_names[label].encode(), path.relative_to(self.root).as_posix())
