"""The one way to list files: what belongs to a file manager, a notebook or a recycle bin is no data.

Every folder is listed in the order of its names, so that the same files give the same data set everywhere.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from internimage.data.images.formats import ARRAY_SUFFIXES, IMAGE_SUFFIXES, UNREAD_SUFFIXES

logger = logging.getLogger(__name__)

# Names, in small letters, of what operating systems and storage devices put beside the files of people. What begins
# with a dot (Jupyter, thumbnails, macOS, trash) or "~$" (open office documents) needs no entry.
SYSTEM_NAMES = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "found.000"),
        *("__macosx", "icon\r", "network trash folder", "temporary items"),
        *("@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin"),  # Synology
        *("@recycle", "@recently-snapshot", "@__thumb"),  # QNAP
        *("lost+found", "__pycache__"),
    }
)
SHOWN = 5


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or belongs to the system.

    Example:
        >>> [is_hidden(name) for name in (".ipynb_checkpoints", "@eaDir", "Thumbs.db", "apple", "0001.jpg")]
        [True, True, True, False, False]
    """
    return name.startswith((".", "~$")) or name.casefold() in SYSTEM_NAMES


def list_files(folder: Path, suffixes: Collection[str] | None = None, *, recursive: bool = True) -> list[Path]:
    """Return the files in a folder, sorted by path.

    Hidden and system files and folders below `folder` are left out; `folder` itself may be called as it likes. Links
    are followed: each folder is listed once, under its own place where it has one in `folder`, and a link to a folder
    that holds it ends there. What was left out is said in one line of the log.

    Args:
        folder: where to look.
        suffixes: file types in small letters, for example {".jpg"}; None takes every file.
        recursive: look into the folders of the folder, too.

    Raises:
        FileNotFoundError: `folder` is no folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder")
    walk = _Walk(folder, None if suffixes is None else tuple(suffixes))
    walk.add_tree("", recursive=recursive)
    above = _identities_above(folder)
    while walk.links:
        link = walk.links.pop(0)
        if _identity(folder / link) not in above | _identities_above((folder / link).parent):
            walk.add_tree(link, recursive=True)
    walk.report()
    return [folder / name for name in sorted(walk.files, key=_by_parts)]


def list_images(folder: Path) -> list[Path]:
    """Return the images below a folder, sorted by path, see `list_files`.

    An array file beside an image of the same name is a copy of it (training tools keep decoded images so) and left out.

    Raises:
        FileNotFoundError: `folder` is no folder.
    """
    files = list_files(folder, IMAGE_SUFFIXES)
    images = {path.with_suffix("") for path in files if path.suffix.lower() not in ARRAY_SUFFIXES}
    kept = [path for path in files if path.suffix.lower() not in ARRAY_SUFFIXES or path.with_suffix("") not in images]
    if len(kept) < len(files):
        logger.warning("%s: %d array files beside images of the same name are left out", folder, len(files) - len(kept))
    return kept


def list_folders(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, sorted by name; hidden and system folders are left out.

    A link counts as the folder that it leads to, unless that folder holds `folder` itself.

    Raises:
        FileNotFoundError: `folder` is no folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder")
    above = _identities_above(folder)
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not is_hidden(entry.name) and _leads_to(entry.is_dir))
    return [folder / name for name in names if _identity(folder / name) not in above]


@dataclass
class _Walk:
    """Files of a tree by name relative to its root, and what was left out on the way."""

    root: Path
    suffixes: tuple[str, ...] | None
    files: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)  # to folders, looked into after all real folders
    hidden: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)  # images of types that are not opened
    seen: set[tuple[int, int]] = field(default_factory=set)

    def add_tree(self, start: str, *, recursive: bool) -> None:
        """Add the files of a folder, and of all real folders below."""
        waiting = [start]
        while waiting:
            inner = waiting.pop()
            identity = _identity(self.root / inner)
            if identity is None or identity in self.seen:
                continue
            self.seen.add(identity)
            try:
                with os.scandir(self.root / inner) as entries:
                    listed = sorted(entries, key=attrgetter("name"))
            except OSError:
                self.closed.append(inner)
                continue
            waiting += self._sorted_out(inner, listed, recursive=recursive)

    def _sorted_out(self, inner: str, entries: Iterable[os.DirEntry[str]], *, recursive: bool) -> list[str]:
        """Take the files of one folder, note its links, and return its folders."""
        folders: list[str] = []
        for entry in entries:
            name = f"{inner}{os.sep}{entry.name}" if inner else entry.name
            is_wanted = self.suffixes is None or entry.name.lower().endswith(self.suffixes)
            if is_hidden(entry.name):
                if entry.is_dir(follow_symlinks=False) or (is_wanted and self.suffixes is not None):
                    self.hidden.append(name)
            elif entry.is_dir(follow_symlinks=False):
                if recursive:
                    folders.append(name)
            elif entry.is_symlink() and _leads_to(entry.is_dir):
                if recursive:
                    self.links.append(name)
            elif is_wanted and _leads_to(entry.is_file):
                self.files.append(name)
            elif is_wanted and entry.is_symlink():
                self.broken.append(name)
            elif self.suffixes is not None and entry.name.lower().endswith(UNREAD_SUFFIXES):
                self.unread.append(name)
        return folders

    def report(self) -> None:
        """Say once what was left out."""
        for names, reason in (
            (self.hidden, "hidden or system entries are left out"),
            (self.broken, "links lead nowhere and are left out"),
            (self.closed, "folders cannot be opened and are left out"),
            (self.unread, "images of types that are not read are left out; convert them to JPEG or PNG"),
        ):
            if names:
                examples = ", ".join(sorted(names, key=_by_parts)[:SHOWN])
                more = ", ..." if len(names) > SHOWN else ""
                logger.warning("%s: %d %s: %s%s", self.root, len(names), reason, examples, more)


def _by_parts(path: str) -> str:
    """Sort as `pathlib` does: a folder's content comes before what only begins with the folder's name."""
    return path.replace(os.sep, "\0")


def _leads_to(kind: Callable[[], bool]) -> bool:
    """Ask an entry whether it is a file or a folder; a link that leads to itself is neither."""
    try:
        return kind()
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a folder from all others, None where it cannot be reached."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _identities_above(folder: Path) -> set[tuple[int, int] | None]:
    """Return the identities of a folder and of all folders that hold it."""
    real = folder.resolve()
    return {_identity(entry) for entry in (real, *real.parents)}
