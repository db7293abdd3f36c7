"""Where an image lies that an annotation file names in the way of another machine.

Names are taken as they stand first. Those with drive letters, backslashes, leading folders, "..", addresses or percent
signs of other machines are then looked up by their end, below the folder of the data set and nowhere else.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import defaultdict
from pathlib import Path, PureWindowsPath
from reprlib import repr as repr_short  # cuts long values
from typing import Any
from urllib.parse import unquote

from internimage.data.listing import list_files
from internimage.data.parts import Part, part_of

MAX_NAME, MAX_PARTS = 255, 64  # letters of a file or folder; folders of a path
SHOWN = 3
_ADDRESS_END = re.compile("[?#]")


class ImagePaths:
    """Looks up the files that an annotation file names.

    Args:
        folder: what relative names count from.
        root: folder of the data set, which `folder` lies in; None where it is `folder` itself.
        part: which part of the data set is read, so that an image of another part is never taken for one of this.
    """

    def __init__(self, folder: Path, root: Path | None = None, *, part: Part | None = None) -> None:
        self.folder = folder
        self.root = folder if root is None else root
        self.part: Part | None = part or part_of(folder.name)
        self.num_missing = 0
        self._first_missing: list[str] = []
        self._index: dict[str, list[tuple[str, ...]]] | None = None

    def find(self, *names: Any) -> Path:
        """Return the file of the first of some names that there is.

        Raises:
            ValueError: the first is no file name, or there is no such file, or several fit; the message says where it
                was looked for.
        """
        reasons: list[str] = []
        for name in names:
            try:
                return self._find(name)
            except ValueError as error:
                reasons.append(str(error))
        self.num_missing += 1
        if len(self._first_missing) < SHOWN:
            self._first_missing.append(reasons[0])
        raise ValueError(reasons[0])

    def refuse_none(self, num_found: int, annotation_file: Path) -> None:
        """Raise a FileNotFoundError when every image of a data set is missing: then the folder is wrong."""
        if self.num_missing and not num_found:
            tried = "\n  ".join(self._first_missing)
            raise FileNotFoundError(
                f"none of the {self.num_missing} images of {annotation_file} is where it was looked for:\n  {tried}\n"
                "Give the folder that holds them"
            )

    def _find(self, name: Any) -> Path:
        is_plain = isinstance(name, str) and not name.startswith(("/", "\\")) and ":" not in name and ".." not in name
        if is_plain and len(name) <= MAX_NAME and _is_file(path := self.folder / name):
            return path
        readings = _readings(name)
        leads_out = _leads_out(name)
        for tail in readings:
            if _is_file(path := self.folder.joinpath(*tail)):
                return path
        for tail in readings:
            found = self._by_end(tail)
            if len(found) == 1:
                return found[0]
            if found:
                listed = ", ".join(str(path) for path in found[:SHOWN])
                raise ValueError(f"the image {repr_short(name)} is not clear: it may be {listed}")
        elsewhere = f"and no other file below {self.root} ends in the same names"
        if leads_out:
            raise ValueError(f"the name {repr_short(name)} leads out of the folder of the images, {elsewhere}")
        raise ValueError(f"the image {self.folder.joinpath(*readings[0])} is missing, {elsewhere}")

    def _by_end(self, tail: tuple[str, ...]) -> list[Path]:
        """Return the files below the root whose last names are those of a path, the more the better.

        The file name alone is enough only in the folder that names count from: elsewhere it may be another image.
        """
        if self._index is None:
            self._index = defaultdict(list)
            for path in list_files(self.root):
                parts = path.relative_to(self.root).parts
                self._index[_folded(parts[-1])].append(parts)
        home = self.folder.relative_to(self.root).parts if self.folder.is_relative_to(self.root) else ()
        best: list[tuple[str, ...]] = []
        longest = 0
        for parts in self._index.get(_folded(tail[-1]), ()):
            common = _common_end(parts, tail)
            is_enough = common > 1 or parts[: len(home)] == home
            if is_enough and common >= longest and not self._is_of_another_part(parts):
                best = [*(best if common == longest else ()), parts]
                longest = common
        exact = [parts for parts in best if parts[-1] == tail[-1]]
        return [self.root.joinpath(*parts) for parts in exact or best]

    def _is_of_another_part(self, parts: tuple[str, ...]) -> bool:
        others = {part_of(name) for name in parts[:-1]} - {None}
        return self.part is not None and bool(others) and self.part not in others


def path_parts(name: Any) -> tuple[str, ...]:
    r"""Return the names between slashes of either kind, without drives, roots and dots; nothing for what is no path.

    Example:
        >>> path_parts("C:\\data\\images\\a.png"), path_parts("../images/a.png"), path_parts(None)
        (('data', 'images', 'a.png'), ('images', 'a.png'), ())
    """
    if not isinstance(name, str) or "\0" in name:
        return ()
    inner = name[len(PureWindowsPath(name).drive) :].replace("\\", "/")
    parts = tuple(part for part in inner.split("/") if part.strip() not in ("", ".", ".."))
    return parts if len(parts) <= MAX_PARTS and max(map(len, parts), default=0) <= MAX_NAME else ()


def _readings(name: Any) -> list[tuple[str, ...]]:
    """Return the parts of a name, and of what else other machines may mean by it, without what leads out of a folder.

    Raises:
        ValueError: it is no name of a file.
    """
    is_name = isinstance(name, str) and len(name) <= MAX_NAME * MAX_PARTS
    texts = [name, name.strip()] if is_name else []
    if is_name and "://" in name:
        texts.append(_ADDRESS_END.split(name.split("://", 1)[1].partition("/")[2])[0])
    texts += [unquote(text) for text in texts if "%" in text]
    readings = [parts for parts in dict.fromkeys(map(path_parts, texts)) if parts]
    if not readings:
        raise ValueError(f"expected the name of an image file, given {repr_short(name)}")
    return readings


def _leads_out(name: str) -> bool:
    """Whether a name is no plain relative path, on any system."""
    path = PureWindowsPath(name)
    return bool(path.drive or path.root) or ".." in path.parts


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that this system cannot even look for
        return False


def _common_end(parts: tuple[str, ...], tail: tuple[str, ...]) -> int:
    # Paths of any two lengths: the shorter one ends the comparison.
    pairs = zip(reversed(parts), reversed(tail), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: _folded(pair[0]) == _folded(pair[1]), pairs))


def _folded(name: str) -> str:
    """Return a name as systems that know no case, and write accents apart, compare it."""
    return unicodedata.normalize("NFC", name).casefold()
