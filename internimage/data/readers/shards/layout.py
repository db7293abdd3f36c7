"""Which folders and files are data sets in archives, and which part each archive belongs to."""

from __future__ import annotations

import logging
import os
from functools import cache, partial
from pathlib import Path

from internimage.data.class_list import find_class_list
from internimage.data.images.formats import IMAGE_SUFFIXES
from internimage.data.labeled_files import LabeledFiles
from internimage.data.listing import list_files, list_folders
from internimage.data.parts import PARTS, Part, part_folders, part_in
from internimage.data.readers.layout import Layout
from internimage.data.readers.shards.index import open_part, read_index
from internimage.data.readers.shards.scan import by_part, labeled_images, scan
from internimage.data.untrusted.archives import ARCHIVE_SUFFIXES

logger = logging.getLogger(__name__)


def find_shards(root: Path) -> Layout | None:
    """Return the layout of a data set in archives, None where it is none.

    Args:
        root: folder of shards as `internimage shard` writes them, of tar or zip files whose names say their part
            (`train-000000.tar`, `imagenet-val.zip`), or of folders `train`, `val`, `test` that hold archives; or one
            archive.

    Raises:
        ValueError: an archive is damaged, or archives do not say the classes.
    """
    if root.is_file():
        return _by_content(root, [root]) if root.suffix.lower() in ARCHIVE_SUFFIXES else None
    index = read_index(root) if root.is_dir() else None
    if index is not None:
        return Layout(root, {part: partial(open_part, root, index, part) for part in index.parts})
    is_packed = root.is_dir() and not any(map(_holds_images, list_folders(root)))
    parts = _archives_of_parts(root) if is_packed else {}
    if not parts:
        return None
    if None in parts:
        return _by_content(root, parts[None]) if len(parts) == 1 else None
    listed = find_class_list(root)
    names = None if listed is None else listed.names

    @cache
    def train_names() -> tuple[str, ...] | None:
        return _open(root, parts["train"], names).class_names if "train" in parts and names is None else names

    return Layout(root, {part: partial(_open_as, root, parts[part], names) for part in parts}, train_names)


def _open_as(
    root: Path, archives: list[Path], listed: tuple[str, ...] | None, names: tuple[str, ...] | None
) -> LabeledFiles:
    return _open(root, archives, listed if names is None else names)


def _open(root: Path, archives: list[Path], names: tuple[str, ...] | None) -> LabeledFiles:
    """Open the archives of one part."""
    logger.info("reads the lists of %d archives in %s", len(archives), root)
    entries = scan(archives)
    _, class_folder = by_part(entries)
    return labeled_images(entries, names, root, folders_from=class_folder)


def _by_content(root: Path, archives: list[Path]) -> Layout:
    """Return the layout of archives whose names say nothing: folders in them may be parts."""
    listed = find_class_list(root if root.is_dir() else root.parent)
    names = None if listed is None or root.is_file() else listed.names
    parts, class_folder = by_part(scan(archives))

    @cache
    def opened(part: Part | None, given: tuple[str, ...] | None) -> LabeledFiles:
        return labeled_images(parts[part], names if given is None else given, root, folders_from=class_folder)

    def train_names() -> tuple[str, ...] | None:
        return opened("train", None).class_names if "train" in parts else names

    return Layout(root, {part: partial(opened, part) for part in parts}, train_names)


def _archives_of_parts(root: Path) -> dict[Part | None, list[Path]]:
    """Return the archives of each part, by their names or those of their folders."""
    found: dict[Part | None, list[Path]] = {}
    for archive in list_files(root, ARCHIVE_SUFFIXES, recursive=False):
        found.setdefault(part_in(archive.stem), []).append(archive)
    for part in PARTS:
        for folder in part_folders(root, part)[:1]:
            archives = list_files(folder, ARCHIVE_SUFFIXES, recursive=False)
            if archives and part not in found:
                found[part] = archives
    return found


def _holds_images(folder: Path) -> bool:
    """Whether a folder holds images or folders, so that it is unpacked, and archives beside it are copies."""
    with os.scandir(folder) as entries:
        return any(entry.is_dir() or entry.name.lower().endswith(tuple(IMAGE_SUFFIXES)) for entry in entries)
