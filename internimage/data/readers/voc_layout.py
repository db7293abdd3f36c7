"""The folders of Pascal VOC: which lists are which part, and which classes the files name.

The 20 published classes, and the published use of the lists, are taken where the files hold no other names: own data
often lies in the same folders.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from internimage.data.class_list import find_class_list
from internimage.data.class_names import some_names
from internimage.data.listing import list_files
from internimage.data.objects.dataset import DetectionDataset
from internimage.data.parts import Part, names_of, say_published_test_part
from internimage.data.readers.voc import VOC_CLASSES, listed_files, names_in, open_voc
from internimage.data.untrusted.problems import Broken

logger = logging.getLogger(__name__)

YEARS = ("VOC2007", "VOC2012")
BOTH = "trainval"  # published list of the training and the validation part
BACKGROUND = "background"


@dataclass(frozen=True)
class VocLayout:
    """Years of VOC, or own data in such a folder.

    Args:
        root: folder of the data set.
        lists: names of the lists in each folder of a year.
    """

    root: Path
    lists: Mapping[Path, frozenset[str]]

    @classmethod
    def find(cls, root: Path) -> VocLayout | None:
        """Recognize the layout, None where there is none."""
        homes = (root, *(base / year for base in (root, root / "VOCdevkit") for year in YEARS))
        lists = {
            home: frozenset(file.stem for file in list_files(home / "ImageSets" / "Main", {".txt"}, recursive=False))
            for home in homes
            if (home / "ImageSets" / "Main").is_dir() and (home / "Annotations").is_dir()
        }
        return cls(root, lists) if lists else None

    def open(self, part: Part, names: Sequence[str] | None, broken: Broken) -> DetectionDataset | None:
        """Open a part, None where there is none; `names` None takes those of a class list, else of the files."""
        own = self._own_classes()
        is_published = own is None
        folders = self._published_part(part) if is_published else self._own_part(part)
        if not folders:
            return None
        if is_published and part == "val" and all(name == "test" for _, name in folders):
            say_published_test_part(self.root, "the list 'test'")
        return open_voc(folders, class_names=names or own or VOC_CLASSES, broken=broken)

    def _own_classes(self) -> tuple[str, ...] | None:
        """Return the classes of own data, None where the files only name classes of VOC."""
        for home in (self.root, *self.lists):
            listed = find_class_list(home)
            if listed is not None:
                return tuple(name for name in listed.names if name.casefold() != BACKGROUND)
        found = names_in([file for folder in self._own_part("train") for file, _ in listed_files(*folder)])
        if not found:
            found = names_in([file for home in self.lists for file in list_files(home / "Annotations", {".xml"})])
        if found <= set(VOC_CLASSES):
            return None
        logger.info("%s: classes from the annotations: %s", self.root, some_names(sorted(found)))
        return tuple(sorted(found))

    def _own_part(self, part: Part) -> list[tuple[Path, str]]:
        """Return (folder, list) of a part of own data; what is for training and validation together is for training."""
        found: list[tuple[Path, str]] = []
        for home, lists in self.lists.items():
            names = names_of(lists, part) or ([BOTH] if part == "train" and BOTH in lists else [])
            found += [(home, name) for name in names[:1]]
        return found

    def _published_part(self, part: Part) -> list[tuple[Path, str]]:
        """Return (folder, list) of a part: with a test list training uses both parts, and validation the test list."""
        published = {"train": BOTH, "val": "test", "test": "test"}
        has_test = any("test" in lists for lists in self.lists.values())
        if has_test and any(BOTH in lists for lists in self.lists.values()):
            return [(home, published[part]) for home, lists in self.lists.items() if published[part] in lists]
        return self._own_part(part)
