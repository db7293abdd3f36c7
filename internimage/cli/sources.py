"""What the arguments of a command name: pictures, folders, patterns, videos, cameras."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path


def find_sources(texts: Sequence[str]) -> list[Path]:
    """Return the pictures, videos and cameras that arguments name, each once, in order.

    A file stands for itself, whatever its suffix; a folder for the pictures in and below it; a pattern for what it
    matches; "camera:0" for a camera. What does not exist is kept, so that it is reported beside the others.
    """
    from internimage.data.image_folder import PICTURE_SUFFIXES

    found: dict[Path, None] = {}
    for text in texts:
        path = Path(text)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)
            found |= dict.fromkeys(file for file in inside if file.is_file() and not file.name.startswith("."))
        elif not path.exists() and glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - takes absolute patterns, too
            found |= dict.fromkeys(Path(name) for name in matches)
        else:
            found[path] = None
    return list(found)
