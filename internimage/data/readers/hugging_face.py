"""Image sets of Hugging Face `datasets`, from local files: what `save_to_disk` wrote, or Parquet files."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from internimage.data.dataset import Sample, SampleSource
from internimage.data.images.formats import DECODER_ERRORS, FORMAT_SUFFIXES, FORMATS
from internimage.data.images.raster import RGB, Reading
from internimage.data.images.read import read_image
from internimage.data.labeled_files import ImageContent, label_indices
from internimage.data.listing import list_files, list_folders
from internimage.data.parts import Part, part_in, part_of
from internimage.data.readers.layout import Layout, OpenPart
from internimage.data.untrusted.archives import DamagedArchive, PackedFile
from internimage.errors import MissingExtra

LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class")
SAVED, SAVED_PARTS = "state.json", "dataset_dict.json"


@dataclass(frozen=True)
class TableImage(PackedFile):
    """An image in a column of a table.

    Args:
        name: what it is called.
        content: its file; empty where the table names a file that is not here.
    """

    name: str
    content: bytes

    def __fspath__(self) -> str:
        return self.name

    def read(self) -> bytes:
        """Return the content."""
        if not self.content:
            raise DamagedArchive(
                f"{self.name}: the table does not hold the image itself; embed images when it is saved"
            )
        return self.content


class HuggingFaceImages:
    """The rows of a table as labeled images.

    Args:
        table: a `datasets.Dataset`.
        root: its folder.
        part: its part, for names.
        files: the files that hold it.
        class_names: the classes in the order of their indices, None takes those of the table.

    Raises:
        ValueError: the table has no column of images, or none of labels.
    """

    reading: Reading = RGB

    def __init__(
        self, table: Any, root: Path, part: str, files: Sequence[Path], class_names: tuple[str, ...] | None
    ) -> None:
        datasets = _package()
        features = table.features
        images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
        classes = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
        known = [name for name in LABEL_COLUMNS if name in features]
        if len(images) != 1 or not (known or len(classes) == 1):
            raise ValueError(
                f"{root}: expected one column of images and one of labels ({', '.join(LABEL_COLUMNS)}), given "
                f"{', '.join(features)}"
            )
        label = next((name for name in known if name in classes), (classes or known)[0])
        self.root, self._part, self._files, self._column = root, part, files, images[0]
        self._table = table.cast_column(images[0], datasets.Image(decode=False))
        values: Sequence[Any] = table[label][:]
        if isinstance(kind := features[label], datasets.ClassLabel):
            values = [kind.int2str(value) if 0 <= value < kind.num_classes else value for value in values]
            class_names = class_names or tuple(kind.names)
        labels = [value if isinstance(value, int | str) else -1 for value in values]
        found, self.class_names = label_indices(labels, class_names, root)
        self.labels = np.array(found, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def _file(self, index: int) -> TableImage:
        entry = self._table[int(index)][self._column] or {}
        suffix = Path(entry.get("path") or "").suffix.lower()
        return TableImage(f"{self.root}/{self._part}/{index}{suffix}", entry.get("bytes") or b"")

    def __getitem__(self, index: int) -> Sample[int]:
        file = self._file(index)
        return Sample(read_image(file, self.reading), int(self.labels[index]), str(file))

    def source(self, index: int) -> SampleSource:
        """Return one of the files of the table, which all are looked at in turn, and the name of its class."""
        file = self._files[index % len(self._files)]
        return SampleSource(file, self.class_names[self.labels[index]].encode(), f"{self._part}/{index}")

    def content(self, index: int) -> ImageContent:
        """Return the file of an image.

        Raises:
            ValueError: the table does not hold it.
        """
        file = self._file(index)
        content = file.read()
        suffix = Path(file).suffix or suffix_of(content)
        return ImageContent(f"{self._part}/{index}{suffix}", content, int(self.labels[index]))


def suffix_of(content: bytes) -> str:
    """Return the ending that the file of an image should have, "" where it is none of the known formats."""
    try:
        with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return FORMAT_SUFFIXES.get(image.format or "", ("",))[0]
    except DECODER_ERRORS:
        return ""


def find_hugging_face(root: Path) -> Layout | None:
    """Return the layout of a folder of Hugging Face `datasets`, None where it is none.

    Raises:
        MissingExtra: the folder is one, but the package is not installed.
    """
    if not root.is_dir():
        return None
    parts: dict[Part | None, OpenPart] = {}
    if (root / SAVED_PARTS).is_file():
        for folder in list_folders(root):
            if (folder / SAVED).is_file() and part_of(folder.name) is not None:
                parts.setdefault(part_of(folder.name), partial(_open_saved, folder))
    elif (root / SAVED).is_file():
        parts[None] = partial(_open_saved, root)
    else:
        tables: dict[Part | None, list[Path]] = {}
        for folder in (root, root / "data"):
            for file in list_files(folder, {".parquet"}, recursive=False) if folder.is_dir() else ():
                tables.setdefault(part_in(file.stem), []).append(file)
        for part, files in tables.items():
            parts[part] = partial(_open_parquet, root, part or "all", files)

    @cache
    def train_names() -> tuple[str, ...] | None:
        return parts["train"](None).class_names if "train" in parts else None

    return Layout(root, parts, train_names) if parts else None


def _open_saved(folder: Path, class_names: tuple[str, ...] | None) -> HuggingFaceImages:
    datasets = _package()
    files = list_files(folder, {".arrow"}, recursive=False)
    return _opened(lambda: datasets.load_from_disk(str(folder)), folder.parent, folder.name, files, class_names)


def _open_parquet(root: Path, part: str, files: list[Path], class_names: tuple[str, ...] | None) -> HuggingFaceImages:
    datasets = _package()
    names = [str(file) for file in files]
    return _opened(
        lambda: datasets.load_dataset("parquet", data_files=names, split="train"), root, part, files, class_names
    )


def _opened(
    load: Callable[[], Any], root: Path, part: str, files: list[Path], class_names: tuple[str, ...] | None
) -> HuggingFaceImages:
    try:
        table = load()
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{root}: the tables of {part!r} cannot be read ({error}); save or copy them again") from error
    return HuggingFaceImages(table, root, part, files, class_names)


def _package() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise MissingExtra("datasets", "datasets", "a data set of Hugging Face") from error
