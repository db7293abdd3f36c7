"""From a folder to a data set: which layout it has and which part of it is asked for."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Literal

from internimage.data.dataset import PictureDataset
from internimage.data.fashion_mnist import FashionMNIST, is_fashion_mnist
from internimage.data.image_folder import ImageFolder
from internimage.data.listing import list_folders

VAL_FOLDERS = ("val", "validation", "test")


def open_dataset(root: str | PathLike[str], split: Literal["train", "val"] = "val") -> PictureDataset[int]:
    """Open a classification data set by its folder.

    Args:
        root: folder with the idx files of Fashion-MNIST, or with `train/<class>/` and `val/<class>/` (`validation`
            and `test` are accepted, too), or, for "val" only, with the class folders themselves.
        split: "train" or "val".

    Returns:
        The data set; class indices of "val" follow the class folders of "train" where there are any.

    Raises:
        FileNotFoundError: `root` is no folder, or lacks the part asked for.
        ValueError: a file of the data set is damaged.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split must be 'train' or 'val', given {split!r}")
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; give the folder of the data set")
    if is_fashion_mnist(root):
        return FashionMNIST(root, split)
    train_folder = root / "train"
    if split == "train":
        if not train_folder.is_dir():
            raise FileNotFoundError(f"{root} has no folder 'train' with one folder for each class")
        return ImageFolder(train_folder)
    for name in VAL_FOLDERS:
        if (root / name).is_dir():
            classes = tuple(folder.name for folder in list_folders(train_folder)) if train_folder.is_dir() else None
            return ImageFolder(root / name, classes)
    if train_folder.is_dir():
        raise FileNotFoundError(f"{root} has a folder 'train' but none of {', '.join(VAL_FOLDERS)}")
    return ImageFolder(root)
