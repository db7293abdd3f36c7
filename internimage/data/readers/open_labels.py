"""From a folder to a data set: which layout it has and which part of it is asked for."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from internimage.data.dataset import ImageDataset
from internimage.data.listing import is_hidden, list_folders
from internimage.data.parts import (
    PARTS,
    Part,
    check_part,
    find_part,
    part_folders,
    part_of,
    say_inner_folder,
    say_published_test_part,
    spelled,
)
from internimage.data.readers.fashion_mnist import FILE_STEMS, FashionMNIST, is_fashion_mnist
from internimage.data.readers.folders import IMAGE_SUFFIXES, ImageFolder


def open_dataset(root: str | PathLike[str], split: Part = "val", *, test_stands_in: bool = True) -> ImageDataset[int]:
    """Open a classification data set by its folder.

    Args:
        root: folder with the idx files of Fashion-MNIST, or with a folder for each part (`train/<class>/`,
            `val/<class>/`, `test/<class>/`, see `internimage.data.parts` for other names), or, for "val" and "test",
            with the class folders themselves. A folder that holds nothing but such a folder is accepted, too.
        split: "train", "val" or "test".
        test_stands_in: take the test part, with a warning, where "val" is asked for and is not there.

    Returns:
        The data set; class indices of "val" and "test" follow the class folders of "train" where there are any.

    Raises:
        FileNotFoundError: `root` is no folder, or lacks the part asked for.
        ValueError: a file of the data set is damaged.
    """
    wanted = check_part(split)
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; give the folder of the data set")
    if is_fashion_mnist(root):
        if wanted == "val":
            say_published_test_part(root, FILE_STEMS["val"])
        return FashionMNIST(root, "train" if wanted == "train" else "val")
    root = _home(root)
    parts = _parts(root)
    folder = find_part(wanted, parts.get, root, test_stands_in=test_stands_in)
    if folder is None and not parts and wanted != "train":
        return ImageFolder(root)
    if folder is None and wanted == "train":
        raise FileNotFoundError(
            f"{root} has no folder 'train' with one folder for each class (also found as {spelled('train')})"
        )
    if folder is None:
        given = ", ".join(repr(found.name) for found in parts.values())
        raise FileNotFoundError(f"{root} has {given} but none of {spelled(wanted)}; name another part (--split)")
    if wanted == "train" or "train" not in parts:
        return ImageFolder(folder)
    return ImageFolder(folder, tuple(found.name for found in list_folders(parts["train"])))


def _home(root: Path) -> Path:
    """Return the folder that holds the parts: the one that is given, or the only one in it.

    Raises:
        FileNotFoundError: the parts lie deeper, at several places.
    """
    if _parts(root):
        return root
    folders = list_folders(root)
    inner = [folder for folder in folders if _parts(folder)]
    if not inner:
        return root
    if len(folders) == 1:
        say_inner_folder(root, inner[0])
        return inner[0]
    shown = ", ".join(repr(folder.name) for folder in inner[:5])
    raise FileNotFoundError(
        f"{root} has no parts, but its folders {shown} have. Give one of these folders if each is a data set; where "
        "they are classes, arrange the images as <part>/<class>/, for example train/cat/"
    )


def _parts(root: Path) -> dict[Part, Path]:
    """Return the folder of each part; a folder of images among other folders is a class that is called so."""
    folders = list_folders(root)
    has_others = any(part_of(folder.name) is None for folder in folders)
    found: dict[Part, Path] = {}
    for part in PARTS:
        ours = [folder for folder in part_folders(root, part) if not (has_others and _is_class(folder))]
        if ours:
            found[part] = ours[0]
    return found


def _is_class(folder: Path) -> bool:
    """Whether a folder holds images and no folders."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not is_hidden(entry.name)]
    has_images = any(Path(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in visible)
    return has_images and not any(entry.is_dir() for entry in visible)
