"""Lists of images and their classes: of the original, of Places365, of ImageNet's validation images.

A line is the name of an image and its class, a number or a name: `n01440764/n01440764_10026.JPEG 0`. The images lie in
folders or, with `train_map.txt` and `train.zip`, in zip files.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from internimage.data.class_list import find_class_list
from internimage.data.images.formats import IMAGE_SUFFIXES
from internimage.data.images.image_paths import ImagePaths
from internimage.data.labeled_files import LabeledFiles, as_label, label_indices
from internimage.data.listing import list_files, list_folders
from internimage.data.parts import PARTS, Part, part_folders, part_in, part_of
from internimage.data.readers.folders import ImageFolder
from internimage.data.readers.layout import Layout, OpenPart
from internimage.data.untrusted.archives import Member, list_members
from internimage.data.untrusted.files import MAX_TABLE_BYTES, read_json, read_text
from internimage.data.untrusted.problems import ProblemLog

FOLDERS = ("", "meta_data")  # where lists lie below the data set; the second is the original's
KAGGLE_IMAGES = Path("ILSVRC", "Data", "CLS-LOC")
KAGGLE_LIST, KAGGLE_HEADER = "LOC_val_solution.csv", "ImageId,PredictionString"
PLACES_CLASSES, CLASSES_22K = "categories_places365.txt", "22k_class_to_idx.json"
LIST_22K = "22k_label.txt"
TRIED = 5
_LINE = re.compile(r"(\S.*?)[\s,]+(\S+)")

File = Path | Member
Rows = list[tuple[str, str]]


def find_lists(root: Path) -> Layout | None:
    """Return the layout of a data set whose lists name images and classes, None where there are none."""
    lists = _lists(root) if root.is_dir() else {}
    if not lists:
        return None
    home = root / KAGGLE_IMAGES if (root / KAGGLE_IMAGES).is_dir() else root
    parts: dict[Part | None, OpenPart] = {}
    for part in PARTS:
        folders = part_folders(home, part)
        if part in lists:
            parts[part] = partial(_open, root, home, part, lists[part])
        elif folders and list_folders(folders[0]):
            parts[part] = partial(ImageFolder, folders[0])

    @cache
    def train_names() -> tuple[str, ...] | None:
        if "train" in lists:
            rows = read_rows(lists["train"])
            return _class_names(root, rows) or label_indices([as_label(label) for _, label in rows], None, root)[1]
        return (
            tuple(folder.name for folder in list_folders(part_folders(home, "train")[0])) if "train" in parts else None
        )

    return Layout(root, parts, train_names)


def _lists(root: Path) -> dict[Part, Path]:
    """Return the list of each part; text files whose first line is no image with a class are none."""
    found: dict[Part, list[Path]] = {}
    for folder in (root / name for name in FOLDERS if (root / name).is_dir()):
        for path in list_files(folder, {".txt", ".txt.zip", ".csv"}, recursive=False):
            stem = path.name.removesuffix(".zip").rpartition(".")[0]
            part = "train" if path.name == LIST_22K else part_in(stem)
            if part is not None and _is_list(path):
                found.setdefault(part, []).append(path)
    # Places has two training lists; the "challenge" is the larger one, which the standard folder does not hold.
    return {part: min(paths, key=lambda path: ("challenge" in path.name, path)) for part, paths in found.items()}


def _is_list(path: Path) -> bool:
    if path.name == KAGGLE_LIST:
        return True
    if path.suffix == ".csv":
        return False
    if path.suffix == ".zip":
        return True
    with path.open("rb") as file:
        first = file.readline(4096).decode("utf-8-sig", "replace").strip()
    line = _LINE.fullmatch(first)
    return line is not None and Path(line[1]).suffix.lower() in IMAGE_SUFFIXES


def read_rows(path: Path) -> Rows:
    """Return the names and the classes of a list.

    Raises:
        ValueError: the list is damaged; the message names the first line that is.
    """
    if path.suffix == ".zip":  # of the original: the list alone in a zip file
        members = list_members(path, ProblemLog("raise"))
        if len(members) != 1:
            raise ValueError(f"{path} must hold one list, given {len(members)} files")
        text = members[0].read().decode("utf-8-sig")
    else:
        text = read_text(path, max_bytes=MAX_TABLE_BYTES)
    rows: Rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line == KAGGLE_HEADER:
            continue
        if path.name == KAGGLE_LIST:
            image, _, boxes = line.partition(",")
            line = f"{image}.JPEG {boxes.split(' ')[0]}"
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"{path}, line {number}: expected an image and its class, given {line[:100]!r}")
        rows.append((match[1], match[2]))
    if not rows:
        raise ValueError(f"{path} names no image")
    return rows


def _open(root: Path, home: Path, part: Part, path: Path, class_names: tuple[str, ...] | None) -> LabeledFiles:
    """Open the images of a list.

    Raises:
        FileNotFoundError: none of them is there.
        ValueError: classes are not those of the training part.
    """
    rows = read_rows(path)
    names = _class_names(root, rows) if class_names is None else class_names
    problems = ProblemLog("leave_out")
    find = _finder(home, part, [name for name, _ in rows[:TRIED]], path)
    found: list[tuple[File, str]] = []
    for number, (name, label) in enumerate(rows, 1):
        try:
            found.append((find(name.lstrip("/")), label))
        except ValueError as error:
            problems.add(path, f"image {number}", str(error))
    problems.finish(str(path))
    labels, names = label_indices([as_label(label) for _, label in found], names, path)
    return LabeledFiles(root, [(file, label) for (file, _), label in zip(found, labels, strict=True)], names)


def _finder(home: Path, part: Part, first: Sequence[str], path: Path) -> Callable[[str], File]:
    """Return a function from a name to its file: in the folder, or the zip file, that holds the first ones."""
    names = [name.lstrip("/") for name in first]
    for folder in (*part_folders(home, part), home, *list_folders(home)):
        if all(".." not in name and (folder / name).is_file() for name in names):
            return ImagePaths(folder, home, part=part).find
    archives = [file for file in list_files(home, {".zip"}, recursive=False) if zipfile.is_zipfile(file)]
    for archive in sorted(archives, key=lambda file: part_of(file.stem) != part):
        members = {member.name: member for member in list_members(archive, ProblemLog("leave_out"))}
        for prefix in ("", *{f"{name.split('/')[0]}/" for name in members}):
            if all(prefix + name in members for name in names):
                return partial(_in_archive, members, archive, prefix)
    raise FileNotFoundError(
        f"{path} names {names[0]!r}, which lies in no folder and no zip file of {home}; put the images there, for "
        f"example as {home / part / names[0]}"
    )


def _in_archive(members: dict[str, Member], archive: Path, prefix: str, name: str) -> Member:
    if prefix + name not in members:
        raise ValueError(f"{archive} holds no {name!r}")
    return members[prefix + name]


def _class_names(root: Path, rows: Rows) -> tuple[str, ...] | None:
    """Return the classes by the files beside a list, else by the folders in it; None where only numbers are known."""
    listed = find_class_list(root)
    if listed is not None:
        return listed.names
    for folder in (root / name for name in FOLDERS):
        if (folder / PLACES_CLASSES).is_file():
            return _in_order({name.split("/", 2)[-1]: label for name, label in read_rows(folder / PLACES_CLASSES)})
        if (folder / CLASSES_22K).is_file():
            numbers = read_json(folder / CLASSES_22K)
            if not isinstance(numbers, dict):
                raise ValueError(f"{folder / CLASSES_22K}: expected the number of each class by its name")
            return _in_order({name: str(number) for name, number in numbers.items()})
    if not all(label.isdecimal() for _, label in rows):
        return None
    folders = {(Path(name).parent.name, label) for name, label in rows}
    is_one_to_one = len({name for name, _ in folders}) == len(folders) == len({label for _, label in folders})
    return _in_order(dict(folders)) if is_one_to_one and all(name for name, _ in folders) else None


def _in_order(number_of: dict[str, str]) -> tuple[str, ...] | None:
    """Return the names in the order of their numbers, None where these are not 0 .. n - 1."""
    by_number = {int(number): name for name, number in number_of.items() if number.isdecimal()}
    return (
        tuple(by_number[i] for i in range(len(by_number))) if sorted(by_number) == list(range(len(number_of))) else None
    )
