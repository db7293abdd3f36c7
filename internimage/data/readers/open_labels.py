"""From a folder to a data set: which layout it has and which part of it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
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
from internimage.data.readers.layout import Layout, OpenPart


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
    layout = find_layout(Path(root))
    if wanted == "val" and layout.test_is_published:
        say_published_test_part(layout.root, FILE_STEMS["val"])
        return layout.open("test")
    part: Part | None = find_part(wanted, layout.named.get, layout.root, test_stands_in=test_stands_in)
    if part is not None or (wanted != "train" and not layout.named):
        return layout.open(part)
    if wanted == "train":
        raise FileNotFoundError(
            f"{layout.root} has no folder 'train' with one folder for each class (also found as {spelled('train')})"
        )
    given = ", ".join(map(repr, layout.shown or layout.named))
    raise FileNotFoundError(f"{layout.root} has {given} but none of {spelled(wanted)}; name another part (--split)")


def find_layout(root: Path) -> Layout:
    """Return the layout of a classification data set: its parts, not opened yet.

    Raises:
        FileNotFoundError: there is no such folder or archive, or its parts lie at several places.
        ValueError: an archive or a list of the data set is damaged.
    """
    layout = _find(root)
    if layout is not None:
        return layout
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; give the folder of the data set")
    root = _home(root)
    folders = _parts(root)
    if not folders:
        return Layout(root, {None: partial(ImageFolder, root)})

    def train_names() -> tuple[str, ...] | None:
        return tuple(found.name for found in list_folders(folders["train"])) if "train" in folders else None

    shown = tuple(folder.name for folder in folders.values())
    return Layout(root, {part: partial(ImageFolder, folders[part]) for part in folders}, train_names, shown=shown)


def open_whole(root: Path) -> ImageDataset[int] | None:
    """Return all images of a data set that is not divided into parts, None where it is or where there is none."""
    layout = _find(root)
    if layout is None:
        return ImageFolder(root) if _holds_classes_alone(root) else None
    return None if layout.named else layout.open(None)


def _holds_classes_alone(root: Path) -> bool:
    """Whether a folder holds one folder for each class and no parts."""
    if not root.is_dir() or any(part_folders(root, part) for part in PARTS):
        return False
    folders = list_folders(root)
    is_parted = any(part_folders(folder, part) for folder in folders for part in PARTS)
    return len(folders) > 1 and not is_parted


def _find(root: Path) -> Layout | None:
    """Return the layout of a data set of files that are no class folders."""
    return next((layout for find in _finders() if (layout := find(root)) is not None), None)


def _find_fashion_mnist(root: Path) -> Layout | None:
    if not is_fashion_mnist(root):
        return None
    parts: dict[Part | None, OpenPart] = {
        "train": lambda _: FashionMNIST(root, "train"),
        "test": lambda _: FashionMNIST(root, "val"),
    }
    return Layout(root, parts, test_is_published=True)


def _finders() -> tuple[Callable[[Path], Layout | None], ...]:
    """Return what knows a layout, in the order of asking; the package is imported without most of them."""
    from internimage.data.readers.hugging_face import find_hugging_face
    from internimage.data.readers.image_lists import find_lists
    from internimage.data.readers.inaturalist import find_inaturalist
    from internimage.data.readers.shards.layout import find_shards

    return _find_fashion_mnist, find_lists, find_inaturalist, find_hugging_face, find_shards


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
