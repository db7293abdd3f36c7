"""Images in one folder for each class."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from internimage.data.images.formats import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from internimage.data.labeled_files import LabeledFiles, class_indices
from internimage.data.listing import list_files, list_folders, list_images


class ImageFolder(LabeledFiles):
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

    def __init__(self, root: str | PathLike[str], class_names: tuple[str, ...] | None = None) -> None:
        self.root = Path(root)
        folders = list_folders(self.root)
        labels, classes = class_indices([folder.name for folder in folders], class_names, self.root)
        files = [(path, label) for folder, label in zip(folders, labels, strict=True) for path in list_images(folder)]
        super().__init__(self.root, files, classes)
        if not files:
            text = f"{self.root} holds no image; expected {self.root}/<class>/<image>.jpg or .png"
            if list_files(self.root, IMAGE_SUFFIXES, recursive=False):
                text += ". Images lie in the folder itself: if it is one class, give the folder that holds it"
            raise ValueError(text)
