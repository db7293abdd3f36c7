"""One table of what the parts of a data set are called, for all tasks and layouts."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from internimage.data.listing import list_folders
from internimage.options import Part as Part

logger = logging.getLogger(__name__)

PARTS: tuple[Part, ...] = ("train", "val", "test")
# Preferred names first; case does not count.
NAMES: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
_PART_OF: dict[str, Part] = {name: part for part, names in NAMES.items() for name in names}
_NAME = re.compile(
    rf"(?P<name>{'|'.join(sorted(_PART_OF, key=len, reverse=True))})(?P<more>[ _-]?(?:set|split|data|images|imgs))?"
    r"(?P<year>[ _-]?\d{4})?",
    re.IGNORECASE,
)

Found = TypeVar("Found")


def check_part(split: str) -> Part:
    """Return the part of that name.

    Raises:
        ValueError: it is none of "train", "val" and "test".
    """
    for part in PARTS:
        if split == part:
            return part
    raise ValueError(f"split must be 'train', 'val' or 'test', given {split!r}")


def part_of(name: str) -> Part | None:
    """Return the part that a folder, a list or a key of this name stands for, None for any other name.

    Example:
        >>> part_of("Valid"), part_of("train2017"), part_of("test_set"), part_of("trainers")
        ('val', 'train', 'test', None)
    """
    match = _NAME.fullmatch(name)
    return None if match is None else _PART_OF[match["name"].lower()]


def part_in(name: str) -> Part | None:
    """Return the part that a word of a file's name stands for, None where none does.

    Example:
        >>> part_in("imagenet1k-validation-07"), part_in("places365_train_standard"), part_in("pets")
        ('val', 'train', None)
    """
    return next((part for part in map(part_of, re.split(r"[-_.\s]+", name)) if part is not None), None)


def names_of(names: Iterable[str], part: Part) -> list[str]:
    """Return those of the names that stand for a part, the preferred ones first.

    Example:
        >>> names_of(["validation", "train", "VAL2017", "val"], "val")
        ['val', 'VAL2017', 'validation']
    """
    return sorted((name for name in names if part_of(name) == part), key=_rank)


def part_folders(root: Path, part: Part) -> list[Path]:
    """Return the folders directly below `root` that stand for a part, the preferred names first; links are followed."""
    if not root.is_dir():
        return []
    folders = {folder.name: folder for folder in list_folders(root)}
    return [folders[name] for name in names_of(folders, part)]


def only_folder(root: Path) -> Path | None:
    """Return the only folder in a folder, where it is no part: people often give the folder above the data set."""
    folders = list_folders(root)
    return folders[0] if len(folders) == 1 and part_of(folders[0].name) is None else None


def say_inner_folder(root: Path, inner: Path) -> None:
    """Say that the data set was found one level deeper than the given folder."""
    logger.warning("%s holds the data set in its folder %s, which is opened", root, inner.name)


def spelled(part: Part) -> str:
    """Return the names of a part for a message.

    Example:
        >>> spelled("test")
        'test or testing'
    """
    *first, last = NAMES[part]
    return f"{', '.join(first)} or {last}"


def find_part(
    wanted: Part, find: Callable[[Part], Found | None], place: str | Path, *, test_stands_in: bool = True
) -> Found | None:
    """Return the part that is asked for, None where it is not there.

    Where there is none for validation, that for testing stands in, with a warning. `find` returns a part or None;
    messages call the data set `place`.
    """
    found = find(wanted)
    if found is not None or wanted != "val" or (test_part := find("test")) is None:
        return found
    if not test_stands_in:
        logger.warning(
            "%s has no validation part (%s). Its test part is left alone; data.val_split=test validates on it",
            place,
            spelled("val"),
        )
        return None
    logger.warning(
        "%s has no validation part (%s): its test part is taken. What is chosen by it, such as thresholds, looks "
        "better on it than on new data. Naming the test part (--split test; data.val_split=test in training) ends "
        "this warning",
        place,
        spelled("val"),
    )
    return test_part


def say_published_test_part(place: str | Path, test_part: str) -> None:
    """Say that a published data set is measured on its test part, as everybody does."""
    logger.warning(
        "%s: as published, %s is measured, the test part; nothing else is left for validation", place, test_part
    )


def _rank(name: str) -> tuple[int, bool, str]:
    """Return what names of one part are sorted by: preferred names first."""
    match = _NAME.fullmatch(name)
    assert match is not None, "only names of parts are ranked"
    preferred = NAMES[_PART_OF[match["name"].lower()]].index(match["name"].lower())
    return preferred, name != match["name"].lower(), name
