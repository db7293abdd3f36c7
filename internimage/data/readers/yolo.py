"""Annotations in the text form of YOLO: one file for each image, one line for each object.

Shape legend: K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from reprlib import repr as repr_short  # cuts long values
from typing import Any

import numpy as np

from internimage.data.class_list import find_class_list
from internimage.data.images.image_paths import ImagePaths, path_parts
from internimage.data.listing import list_files, list_images
from internimage.data.objects.dataset import DetectionDataset
from internimage.data.objects.segmentations import polygon_area
from internimage.data.objects.table import AnnotationTable
from internimage.data.parts import Part, names_of, part_folders, part_of
from internimage.data.readers.folders import IMAGE_SUFFIXES
from internimage.data.untrusted.files import read_bytes, read_text
from internimage.data.untrusted.numbers import as_integer
from internimage.data.untrusted.problems import Broken, ProblemLog

MAX_YAML_BYTES = 1 << 20
MAX_CLASSES = 100_000
SHOWN = 3
SLACK = 0.01  # of the image's side that a coordinate may lie outside


def open_yolo(
    images: Sequence[str | PathLike[str]], class_names: Sequence[str], *, name: str = "", broken: Broken = "leave_out"
) -> DetectionDataset:
    """Open images with text annotations.

    A line holds the number of the class and either center x, center y, width, height of a box or the corners x1 y1 x2
    y2 ... of a polygon (three or more), all as fractions of the image's width and height. The file of `images/a.jpg` is
    `labels/a.txt`: the last folder "images" of the path becomes "labels"; without one, the file lies beside the
    image. An image without a file shows no object.

    Args:
        images: folders of images, searched with their subfolders, or .txt files that list images.
        class_names: K names, in the order of the class indices.
        name: what messages call the data set.
        broken: what happens to broken lines: "leave_out" warns and drops them, "raise" refuses the data set.

    Raises:
        FileNotFoundError: a folder or all of the images are missing, or there is not one annotation file.
        ValueError: there are broken lines and `broken` is "raise".
    """
    log = ProblemLog(broken)
    files = _images([Path(entry) for entry in images], log)
    name = name or str(images[0])
    if not files:
        raise FileNotFoundError(f"{name} holds no image; expected {', '.join(sorted(IMAGE_SUFFIXES))}")
    table = AnnotationTable(is_relative=True)
    found = 0
    for path in files:
        image = table.begin(path, path.stem)
        labels = label_file(path)
        if labels.is_file():
            found += 1
            _read_lines(table, image, labels, len(class_names), log)
    if not found:
        raise FileNotFoundError(f"{name} has no annotation: the first one was looked for at {label_file(files[0])}")
    if 0 < table.num_masks < table.num_objects:  # only some lines are polygons; other readers of this form do the same
        table.boxes_as_masks()
    return DetectionDataset(name, class_names, table, problems=log.finish(name))


def label_file(image: Path) -> Path:
    """Return where the annotation of an image lies.

    Example:
        >>> label_file(Path("fruit/images/train/a.jpg")).as_posix()
        'fruit/labels/train/a.txt'
    """
    parts = list(image.with_suffix(".txt").parts)
    folders = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts)


def _images(sources: list[Path], log: ProblemLog) -> list[Path]:
    """Return the image files of folders and lists.

    Raises:
        FileNotFoundError: there are none, but lists of some that are missing.
    """
    files: list[Path] = []
    lists: dict[Path, ImagePaths] = {}
    for source in sources:
        if source.is_dir():
            files += list_images(source)
            continue
        paths = lists[source] = ImagePaths(source.parent, part=part_of(source.stem))
        for number, line in enumerate(read_text(source).splitlines(), 1):
            if not line.strip():
                continue
            try:
                files.append(paths.find(line.strip()))
            except ValueError as error:
                log.add(source, f"line {number}", str(error))
    for source, paths in lists.items():
        paths.refuse_none(len(files), source)
    return files


def _read_lines(table: AnnotationTable, image: int, file: Path, num_classes: int, log: ProblemLog) -> None:
    try:
        lines = read_text(file).splitlines()
    except ValueError as error:
        log.add(file, "the file", str(error))
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            label, box, corners = parse_line(line, num_classes)
        except ValueError as error:
            log.add(file, f"line {number}", str(error))
            continue
        table.has_entry[image] = True
        table.add(box, label, segmentation=None if corners is None else (corners,))


def parse_line(line: str, num_classes: int) -> tuple[int, tuple[float, float, float, float], np.ndarray | None]:
    """Read one line.

    Returns:
        The class, the corners (left, top, right, bottom) as fractions of the image, and the (P, 2) polygon or None.

    Raises:
        ValueError: the line is broken.

    Example:
        >>> parse_line("2 0.5 0.5 0.2 0.4", 3)[:2]
        (2, (0.4, 0.3, 0.6, 0.7))
    """
    try:
        values = [float(word) for word in line.split()]
    except ValueError as error:
        raise ValueError(f"expected numbers, given {line!r:.60}") from error
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        raise ValueError(f"expected a class and 4 numbers of a box or 6, 8, ... of a polygon, given {len(values)}")
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is not finite")
    label, *fractions = values
    if label != int(label) or not 0 <= label < num_classes:
        raise ValueError(f"unknown class {label:g}; expected 0..{num_classes - 1}")
    if len(fractions) == 4 and min(fractions[2:]) <= 0:
        raise ValueError(f"bad box: width {fractions[2]:g} and height {fractions[3]:g} must be positive")
    if min(fractions) < -SLACK or max(fractions) > 1 + SLACK:
        raise ValueError(
            f"coordinates must be fractions of the image, 0..1, given {min(fractions):g}..{max(fractions):g}"
        )
    corners = None
    if len(fractions) == 4:
        x, y, width, height = fractions
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        corners = np.array(fractions).reshape(-1, 2)
        if not polygon_area((corners,)):
            raise ValueError("bad polygon: it encloses no area")
        (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        box = (left, top, right, bottom)
    return int(label), box, corners


def yolo_sources(root: Path, part: Part) -> tuple[list[Path], tuple[str, ...]] | None:
    """Return the image folders and class names that `data.yaml` or a class list give for a part of a data set.

    Keys and folders may have any name of the part. None when the folder has no such layout or no such part.

    Raises:
        FileNotFoundError: that file names a folder or list that is not there.
        ValueError: the file that describes the data set is broken.
    """
    for file in (root / "data.yaml", root / "data.yml", root / "dataset.yaml"):
        if file.is_file():
            document = read_yaml(file)
            keys = names_of((key for key in document if isinstance(key, str)), part)
            sources = next((document[key] for key in keys if document[key]), None)
            sources = sources if isinstance(sources, list) else [sources]
            if sources == [None]:
                found = _part_sources(root, part)
            else:
                found = [_within(root, document.get("path"), entry, file) for entry in sources]
            listed = None if "names" in document else find_class_list(root)
            names = document.get("names") if listed is None else [*listed.names]
            return (found, _class_names(names, file)) if found else None
    listed = find_class_list(root)
    found = [] if listed is None else _part_sources(root, part)
    return (found, listed.names) if listed is not None and found else None


def _part_sources(root: Path, part: Part) -> list[Path]:
    """Return the image folder or the list of images of a part, found by its name."""
    inner = [images for home in part_folders(root, part) if (images := home / "images").is_dir()]
    folders = [*part_folders(root / "images", part), *inner, *part_folders(root, part)]
    lists = [root / f"{name}.txt" for name in names_of((file.stem for file in _texts(root)), part)]
    return [entry for entry in (*folders, *lists) if entry.is_file() or not _has_other_annotations(entry)][:1]


def _texts(root: Path) -> list[Path]:
    return list_files(root, {".txt"}, recursive=False)


def _has_other_annotations(folder: Path) -> bool:
    """Whether the annotations beside the images are no text files."""
    return bool(list_files(folder, {".xml", ".json"}, recursive=False)) and not _texts(folder)


def _within(root: Path, base: Any, entry: Any, file: Path) -> Path:
    """Return an existing folder or list inside of the data set, also where the file names it as on another machine.

    Raises:
        FileNotFoundError: there is none; the message says what was looked for.
    """
    tail, home = path_parts(entry), path_parts(base)
    inner = tail[len(home) :] if tail[: len(home)] == home else tail  # what follows "path", where it is repeated
    clear = [root.joinpath(*home, *tail), root.joinpath(*tail), root.joinpath(*inner)]
    tried = dict.fromkeys([*clear, *(root.joinpath(*tail[i:]) for i in range(len(tail)))])
    for path in tried:
        name = path.stem if path.suffix == ".txt" else path.name
        is_clear = path in clear or len(path.relative_to(root).parts) > 1 or part_of(name) is not None
        if tail and is_clear and path.exists():
            return path
    raise FileNotFoundError(
        f"{file}: {repr_short(entry)} leads nowhere; looked for {', '.join(map(str, [*tried][:SHOWN]))}. "
        "Write paths that count from the folder of the data set"
    )


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the top of a YAML file.

    Raises:
        ValueError: it is too large, no YAML, or holds no names at the top.
    """
    import yaml

    try:
        document = yaml.safe_load(read_bytes(file, max_bytes=MAX_YAML_BYTES))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{file} is no valid YAML file: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{file}: expected keys such as train, val and names")
    return document


def _class_names(names: Any, file: Path) -> tuple[str, ...]:
    """Read a list of names or a table from numbers to names."""
    if isinstance(names, dict):
        numbered = {as_integer(key): name for key, name in names.items()}
        if len(numbered) != len(names) or set(numbered) != set(range(len(names))):
            raise ValueError(f"{file}: the keys of 'names' must be 0 .. {len(names) - 1}")
        names = [numbered[i] for i in range(len(names))]
    if not isinstance(names, list) or not 0 < len(names) <= MAX_CLASSES:
        raise ValueError(f"{file}: expected 'names' with the name of each class")
    if not all(isinstance(name, str | int | float) and not isinstance(name, bool) for name in names):
        raise ValueError(f"{file}: the names of the classes must be texts; put words such as no and yes in quotes")
    return tuple(str(name) for name in names)
