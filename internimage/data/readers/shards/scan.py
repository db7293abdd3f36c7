"""Archives of other tools: which of their files are images, and of which class and part each is.

A sample of a tar shard is what shares a name up to its first dot: `a/0001.jpg` with `a/0001.cls` (the class as a number
or a name) or `a/0001.json` ({"label": ...}). Where no image has a label, the folders in the archive are the classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from internimage.data.images.formats import IMAGE_SUFFIXES
from internimage.data.labeled_files import LabeledFiles, as_label, label_indices
from internimage.data.parts import Part, part_of
from internimage.data.untrusted.archives import Member, list_members
from internimage.data.untrusted.problems import ProblemLog

LABEL_SUFFIXES = (".cls", ".json")
MAX_LABEL_BYTES = 1 << 20
_KEYS = ("label", "class_name", "class")


@dataclass(frozen=True, slots=True)
class Entry:
    """An image in an archive.

    Args:
        image: its file.
        label: its class as a number or a name, None where nothing says it.
    """

    image: Member
    label: int | str | None


def scan(archives: Sequence[Path]) -> list[Entry]:
    """Return the images of archives, in the order of the archives.

    Raises:
        DamagedArchive: a ValueError; an archive is damaged or not complete.
        ValueError: there is no image, or some images have labels and most do not.
    """
    problems = ProblemLog("leave_out")
    entries = [entry for archive in archives for entry in _entries(archive, problems)]
    labeled = [entry for entry in entries if entry.label is not None]
    if labeled and len(labeled) < len(entries):
        for entry in entries:
            if entry.label is None:
                problems.add(
                    entry.image.archive, repr(entry.image.name), f"no label beside it ({_wanted(entry.image)})"
                )
    problems.finish(str(archives[0].parent))
    if not entries:
        raise ValueError(f"{archives[0]} holds no image; expected images with labels (a.jpg, a.cls), or class folders")
    return labeled or sorted(entries, key=lambda entry: entry.image.name.split("/"))  # as folders are listed


def labeled_images(
    entries: Sequence[Entry], class_names: tuple[str, ...] | None, root: Path, *, folders_from: int = 0
) -> LabeledFiles:
    """Return a data set of the images of archives.

    Args:
        entries: the images, all with labels or all without.
        class_names: the classes in the order of their indices; None takes what is found.
        root: folder or archive of the data set.
        folders_from: which folder in the archive is the class, where there are no labels.

    Raises:
        ValueError: nothing says the classes, or they are none of `class_names`.
    """
    labels = [_folder(entry, folders_from) if entry.label is None else entry.label for entry in entries]
    numbers, classes = label_indices(labels, class_names, root)
    return LabeledFiles(root, [(entry.image, label) for entry, label in zip(entries, numbers, strict=True)], classes)


def by_part(entries: Sequence[Entry]) -> tuple[dict[Part | None, list[Entry]], int]:
    """Return the images by the part that their folders in the archive stand for, and which folder is the class."""
    folders = [entry.image.name.split("/")[:-1] for entry in entries]
    start = 0
    while all(len(names) > start + 1 and names[start] == folders[0][start] for names in folders):
        if part_of(folders[0][start]) is not None:
            break
        start += 1
    parts: list[Part | None] = [part_of(names[start]) if len(names) > start else None for names in folders]
    if None in parts:
        return {None: list(entries)}, start
    found: dict[Part | None, list[Entry]] = {}
    for part, entry in zip(parts, entries, strict=True):
        found.setdefault(part, []).append(entry)
    return found, start + 1


def _entries(archive: Path, problems: ProblemLog) -> list[Entry]:
    """Return the images of an archive with their labels."""
    members = list_members(archive, problems)
    labels: dict[str, dict[str, Member]] = {}
    for member in members:
        key, suffix = _key(member.name)
        if suffix in LABEL_SUFFIXES:
            labels.setdefault(key, {})[suffix] = member
    images = [member for member in members if Path(member.name).suffix.lower() in IMAGE_SUFFIXES]
    found: list[Entry] = []
    for image in images:
        beside = labels.get(_key(image.name)[0], {})
        try:
            found.append(Entry(image, _label(beside)))
        except ValueError as error:
            problems.add(archive, repr(image.name), str(error))
    return found


def _key(name: str) -> tuple[str, str]:
    """Return the name of a sample and the ending of one of its files."""
    folder, _, file = name.rpartition("/")
    stem, dot, ending = file.partition(".")
    return f"{folder}/{stem}", f"{dot}{ending}".lower()


def _label(files: Mapping[str, Member]) -> int | str | None:
    """Read the label of a sample.

    Raises:
        ValueError: it is damaged.
    """
    for suffix in LABEL_SUFFIXES:
        file = files.get(suffix)
        if file is None:
            continue
        if file.size > MAX_LABEL_BYTES:
            raise ValueError(f"its label has {file.size} bytes, more than the limit of {MAX_LABEL_BYTES}")
        text = file.read().decode("utf-8-sig").strip()
        label = _in_json(text) if suffix == ".json" else text
        if label is not None and label != "":
            return as_label(label) if isinstance(label, str) else label
    return None


def _in_json(text: str) -> int | str | None:
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("its label is nested too deeply") from error
    values = [content.get(key) for key in _KEYS] if isinstance(content, dict) else []
    return next((value for value in values if type(value) in (int, str)), None)


def _folder(entry: Entry, index: int) -> str:
    folders = entry.image.name.split("/")[:-1]
    if len(folders) <= index:
        raise ValueError(
            f"{entry.image}: nothing says of which class the image is; expected a label beside it "
            f"({_wanted(entry.image)}) or one folder for each class in the archive"
        )
    return folders[index]


def _wanted(image: Member) -> str:
    return f"{_key(image.name)[0].lstrip('/')}.cls with the number or the name of the class"
