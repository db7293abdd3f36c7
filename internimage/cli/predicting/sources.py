"""What the arguments of a command name: images, folders, patterns, videos, cameras."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Sequence
from pathlib import Path


def find_sources(texts: Sequence[str]) -> list[Path]:
    """Return the images, videos and cameras that arguments name, each once, in order.

    A file stands for itself, whatever its suffix; a folder for the images in and below it; a pattern for the files
    that it matches ("**" for any number of folders); "camera:0" for a camera. What is hidden below a folder is left
    out, see `internimage.data.listing`. What does not exist is kept, so that it is reported beside the others.
    """
    from internimage.data.listing import list_images

    found: dict[Path, None] = {}
    for text in texts:
        path = Path(text)
        if path.is_dir():
            found |= dict.fromkeys(list_images(path))
        elif not path.exists() and glob.has_magic(text):
            found |= dict.fromkeys(_matches(Path(path.anchor), path.parts[bool(path.anchor) :]))
        else:
            found[path] = None
    return list(found)


def _matches(folder: Path, wanted: Sequence[str]) -> list[Path]:
    """Return the files below a folder that the parts of a pattern match, sorted."""
    from internimage.data.listing import list_files, list_folders

    first, rest = wanted[0], wanted[1:]
    if not folder.is_dir():
        return []
    if first == "**":
        files = list_files(folder)
        return [path for path in files if _is_match(path.relative_to(folder).parts, wanted)]
    if not rest:
        return [path for path in list_files(folder, recursive=False) if fnmatch.fnmatch(path.name, first)]
    if not glob.has_magic(first):
        return _matches(folder / first, rest)
    folders = [inner for inner in list_folders(folder) if fnmatch.fnmatch(inner.name, first)]
    return [path for inner in folders for path in _matches(inner, rest)]


def _is_match(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Compare the parts of a path with those of a pattern, of which "**" stands for any number."""
    if not wanted:
        return not names
    if wanted[0] == "**":
        return wanted[1:] == () or any(_is_match(names[i:], wanted[1:]) for i in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatch(names[0], wanted[0]) and _is_match(names[1:], wanted[1:])
