"""Annotations in the XML form of Pascal VOC, in the folders of VOC or beside the images.

Shape legend: K classes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path, PurePath
from reprlib import repr as repr_short  # cuts long values
from xml.etree.ElementTree import Element

from internimage.data.class_names import NONE, SHOWN, place_names, some_names
from internimage.data.images.image_paths import ImagePaths, path_parts
from internimage.data.images.read import image_size
from internimage.data.objects.dataset import DetectionDataset
from internimage.data.objects.table import SIZE_UNKNOWN, AnnotationTable
from internimage.data.readers.folders import IMAGE_SUFFIXES
from internimage.data.untrusted.files import read_text
from internimage.data.untrusted.numbers import as_number, read_flag, read_size
from internimage.data.untrusted.problems import Broken, ProblemLog
from internimage.data.untrusted.xml_tree import read_xml, texts

logger = logging.getLogger(__name__)

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def open_voc(
    folders: Sequence[tuple[str | PathLike[str], str]],
    *,
    class_names: Sequence[str] = VOC_CLASSES,
    broken: Broken = "leave_out",
) -> DetectionDataset:
    """Open Pascal VOC, or a data set in its folders; several years make one data set.

    Difficult objects are kept apart. Coordinates count from 1 in these files; 1 is subtracted.

    Args:
        folders: (folder of a year, name of its list), for example ("VOCdevkit/VOC2007", "trainval"); a folder holds
            `Annotations/`, `JPEGImages/` and `ImageSets/Main/<list>.txt`.
        class_names: K names, in the order of the class indices.
        broken: what happens to broken entries: "leave_out" warns and drops them, "raise" refuses the data set.

    Raises:
        FileNotFoundError: a list, or all of the images are missing.
        ValueError: there are broken entries and `broken` is "raise".
    """
    files = [entry for folder, name in folders for entry in listed_files(Path(folder), name)]
    if not files:
        lists = ", ".join(str(Path(folder) / "ImageSets" / "Main" / f"{part}.txt") for folder, part in folders)
        raise ValueError(f"{lists}: there is no name of an image in it")
    name = ", ".join(f"{Path(folder).name} {part}" for folder, part in folders)
    return open_xml(files, class_names=class_names, name=name, broken=broken)


def listed_files(root: Path, name: str) -> list[tuple[Path, Path]]:
    """Return the annotation, and the image without its ending, of each line of a list in `ImageSets/Main/` of a year.

    Raises:
        FileNotFoundError: there is no such list.
        ValueError: a line names no file; the message says which.
    """
    files: list[tuple[Path, Path]] = []
    listing = root / "ImageSets" / "Main" / f"{name}.txt"
    for number, line in enumerate(read_text(listing).splitlines(), 1):
        if entry := line.split():
            try:
                files.append(_files_of(root, entry[0]))
            except ValueError as error:
                raise ValueError(f"{listing}, line {number}: {error}") from error
    return files


def names_in(files: Sequence[Path]) -> set[str]:
    """Return the names of the objects in annotation files; those that cannot be read are left out."""
    found: set[str] = set()
    for file in files:
        try:
            tree = read_xml(file)
        except (ValueError, OSError):
            continue  # reported when the data set is read
        found |= {_name(entry) for entry in tree.iter("object")}
    return found - {""}


def _files_of(root: Path, name: str) -> tuple[Path, Path]:
    """Return the annotation, and the image without its ending, of a line of a list.

    A line holds the bare name; some tools write folders before it, or a file type behind it.

    Raises:
        ValueError: it is no name.
    """
    parts = path_parts(name)
    if not parts:
        raise ValueError(f"expected the name of an image, given {repr_short(name)}")
    last = PurePath(parts[-1])
    bare = last.stem if last.suffix.lower() in (*IMAGE_SUFFIXES, ".xml") else last.name
    names = dict.fromkeys(("/".join(parts), last.name, bare))
    files = [(root / "Annotations" / f"{own}.xml", root / "JPEGImages" / own) for own in names]
    return next((pair for pair in files if pair[0].is_file()), files[0])


def open_xml(
    files: Sequence[tuple[Path, Path]],
    *,
    class_names: Sequence[str] | None = None,
    name: str = "",
    broken: Broken = "leave_out",
) -> DetectionDataset:
    """Open XML annotations wherever they lie.

    Args:
        files: (annotation file, image file without its ending) of each image.
        class_names: K names, in the order of the class indices; None takes those found, in alphabetical order.
        name: what messages call the data set.
        broken: see `open_voc`.

    Raises:
        FileNotFoundError: all of the images are missing.
        ValueError: there is no annotation, or there are broken entries and `broken` is "raise".
    """
    if not files:
        raise ValueError(f"{name or 'the data set'} has no XML annotation")
    reader = _VocReader(ProblemLog(broken))
    trees = ((file, image, reader.tree(file)) for file, image in files)
    if class_names is None:
        trees = list(trees)
        class_names = sorted(
            {_name(entry) for _, _, tree in trees if tree is not None for entry in tree.iter("object")}
        )
    reader.class_names = tuple(class_names)
    for file, image, tree in trees:
        if tree is not None:
            reader.read(file, image, tree)
    for paths in reader.paths.values():
        paths.refuse_none(len(reader.table), files[0][0].parent)
    name = name or str(files[0][0].parent)
    reader.say_foreign(name)
    return DetectionDataset(name, class_names, reader.table, problems=reader.log.finish(name))


class _VocReader:
    """Fills a table from one file after the other."""

    def __init__(self, log: ProblemLog) -> None:
        self.log = log
        self.table = AnnotationTable()
        self.class_names: tuple[str, ...] = ()
        self.foreign: Counter[str] = Counter()
        self._numbers: dict[str, int] = {}
        self.paths: dict[Path, ImagePaths] = {}

    def tree(self, file: Path) -> Element | None:
        """Return the content of a file, None where it cannot be read."""
        try:
            return read_xml(file)
        except (ValueError, OSError) as error:
            self.log.add(file, "the file", str(error))
            return None

    def read(self, file: Path, image: Path, tree: Element) -> None:
        """Read an image and its objects."""
        try:
            path = find_image(image) or self._named_in(tree, image)
            size_hw = read_size(texts(tree.find("size")))
            if size_hw == SIZE_UNKNOWN:
                size_hw = image_size(path)
        except ValueError as error:
            self.log.add(file, "the image", str(error))
            return
        number = self.table.begin(path, image.name, size_hw)
        for i, entry in enumerate(tree.iter("object")):
            place = f"object[{i}]"
            own = texts(entry)
            label = self._label(own.get("name", ""))
            if label == NONE:
                self.foreign[own.get("name", "")] += 1
                self.log.add(file, place, f"unknown class {repr_short(own.get('name', ''))}")
                continue
            self.table.has_entry[number] = True
            try:
                box = _box(texts(entry.find("bndbox")), size_hw)
            except ValueError as error:
                self.log.add(file, place, str(error))
                continue
            is_difficult = read_flag(own, "difficult", partial(self.log.add, file, place))
            self.table.add(box, label, is_special=is_difficult, is_learnable=not is_difficult)

    def _label(self, name: str) -> int:
        """Return the index of a class by its name, -1 for a foreign one."""
        if name not in self._numbers:
            [self._numbers[name]] = place_names([name], self.class_names)
        return self._numbers[name]

    def say_foreign(self, data_name: str) -> None:
        """Say which objects are left out because their classes are not among the expected ones."""
        if self.foreign:
            counts = [f"{name!r:.60} ({number})" for name, number in self.foreign.most_common(SHOWN)]
            more = f" and {len(self.foreign) - SHOWN} more classes" if len(self.foreign) > SHOWN else ""
            logger.warning(
                "%s: %d objects are left out, whose classes are not among the expected ones: %s%s; expected are %s",
                data_name,
                self.foreign.total(),
                ", ".join(counts),
                more,
                some_names(self.class_names),
            )

    def _named_in(self, tree: Element, image: Path) -> Path:
        """Return the image that the annotation itself names, where none has the name of the annotation.

        Raises:
            ValueError: there is none.
        """
        if image.parent not in self.paths:
            self.paths[image.parent] = ImagePaths(image.parent)
        own = texts(tree)
        names = [own[key] for key in ("path", "filename") if own.get(key)]
        return self.paths[image.parent].find(f"{image.name}.jpg", *names)


def find_image(stem: Path) -> Path | None:
    """Return the image file of that name with any ending, None where there is none."""
    for suffix in (".jpg", *sorted(IMAGE_SUFFIXES - {".jpg"}), ".JPG", ".JPEG", ".PNG"):
        if (path := stem.with_name(stem.name + suffix)).is_file():
            return path
    return None


def _name(entry: Element) -> str:
    return (entry.findtext("name") or "").strip()


def _box(sides: dict[str, str], size_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return corners in pixels, counted from 0; fractions are cut off as in the original."""
    given = [sides.get(side) for side in ("xmin", "ymin", "xmax", "ymax")]
    values = [as_number(text) for text in given]
    if None in values:
        raise ValueError(
            f"bad box: expected the numbers xmin, ymin, xmax, ymax, given {repr_short(given)}, not finite or no number"
        )
    left, top, right, bottom = (float(int(value)) - 1 for value in values if value is not None)
    if right <= left or bottom <= top:
        raise ValueError(f"bad box: {repr_short(given)} has no positive width and height")
    if left >= size_hw[1] or top >= size_hw[0] or right <= 0 or bottom <= 0:
        raise ValueError(f"bad box: {repr_short(given)} lies outside of the image (height, width) {size_hw}")
    return left, top, right, bottom
