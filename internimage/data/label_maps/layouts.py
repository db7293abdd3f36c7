"""How the published data sets lie on the disk, and own data.

A layout finds the folders of a split below a root and says which values their masks hold; it reads no image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from internimage.data.class_list import ClassList
from internimage.data.label_maps.dataset import MaskedImage
from internimage.data.label_maps.label_map import IGNORED, MaskValues, mapped_values, plain_values, zero_is_nothing
from internimage.data.label_maps.pairing import pairs_by_name, pairs_of_list
from internimage.data.listing import list_files, list_folders
from internimage.data.parts import PARTS, check_part, part_folders
from internimage.data.readers.folders import IMAGE_SUFFIXES

OWN = "folders"

# Numbers of the 19 Cityscapes classes in `labelIds` files; the others have no class.
CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_IDS = 34
# Numbers of the 66 Mapillary Vistas classes (version 1.2) that each of the 19 Cityscapes classes unites.
MAPILLARY_IDS = (
    *((13, 24, 41), (2, 15), (17,), (6,), (3,), (45, 47), (48,), (50,), (30,), (29,), (27,), (19,), (20, 21, 22)),
    *((55,), (61,), (54,), (58,), (57,), (52,)),
)
MAPILLARY_CLASSES = 66
# COCO numbers things and stuff 0..181; these numbers were never used.
COCO_STUFF_UNUSED = frozenset({11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})
COCO_STUFF_IDS = 182

Find = Callable[[Path, str], list[MaskedImage]]


@dataclass(frozen=True)
class Layout:
    """One arrangement of folders.

    Args:
        name: how it is asked for.
        labels: name of the label set, see `internimage.data.labels`.
        splits: each split and the files and folders below the root that it needs.
        find: lists the files of a split.
        homes: folders below the given root that may hold everything, beside the root itself.
        marks: files and folders of which one must be there to recognize the layout, where own data looks alike.
        file_names: what images of the published data set are called, where own data is often arranged alike.
    """

    name: str
    labels: str
    splits: Mapping[str, tuple[str, ...]]
    find: Find
    homes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    file_names: str = ""

    def looks_published(self, home: Path, split: str) -> bool:
        """Whether images of a split have the names of the published data set."""
        images = list_files(home / self.splits[split][0], IMAGE_SUFFIXES) if self.file_names else []
        return not self.file_names or any(re.fullmatch(self.file_names, path.name) for path in images)

    def home(self, root: Path, split: str, *, is_named: bool) -> Path | None:
        """Return the folder that holds what a split needs, None where there is none.

        Args:
            root: the given folder.
            split: part of the data set.
            is_named: the layout was asked for, so that it need not be recognized.
        """
        needed = self.splits.get(split, ())
        for home in (root, *(root / inner for inner in self.homes)):
            is_marked = is_named or not self.marks or any((home / mark).exists() for mark in self.marks)
            if needed and is_marked and all((home / part).exists() for part in needed):
                return home
        return None


def cityscapes_values() -> MaskValues:
    """Return the values of `labelIds` files."""
    classes = {label_id: i for i, label_id in enumerate(CITYSCAPES_LABEL_IDS)}
    return mapped_values({**dict.fromkeys(range(CITYSCAPES_IDS), IGNORED), **classes})


def mapillary_values() -> MaskValues:
    """Return the values of Mapillary label files, as the 19 classes of Cityscapes."""
    classes = {label_id: i for i, united in enumerate(MAPILLARY_IDS) for label_id in united}
    return mapped_values({**dict.fromkeys(range(MAPILLARY_CLASSES), IGNORED), **classes})


def coco_stuff_values() -> MaskValues:
    """Return the values of the original COCO-Stuff masks, whose numbers have gaps."""
    used = [i for i in range(COCO_STUFF_IDS) if i not in COCO_STUFF_UNUSED]
    return mapped_values({value: i for i, value in enumerate(used)})


def _ade20k(root: Path, split: str) -> list[MaskedImage]:
    folder = {"train": "training", "val": "validation"}[split]
    return pairs_by_name(root / "images" / folder, root / "annotations" / folder, [("", zero_is_nothing(150))])


def _cityscapes(root: Path, split: str) -> list[MaskedImage]:
    masks = root / ("refinement_final" if split == "train_extra" else "gtFine") / split
    endings = [("_gtFine_labelTrainIds", plain_values(19)), ("_gtFine_labelIds", cityscapes_values())]
    return pairs_by_name(root / "leftImg8bit" / split, masks, endings, image_ending="_leftImg8bit")


def _coco_stuff_164k(root: Path, split: str) -> list[MaskedImage]:
    endings = [("_labelTrainIds", plain_values(171)), ("", coco_stuff_values())]
    folder = f"{split}2017"
    return pairs_by_name(root / "images" / folder, root / "annotations" / folder, endings)


def _coco_stuff_10k(root: Path, split: str) -> list[MaskedImage]:
    folder = {"train": "train2014", "val": "test2014"}[split]
    endings = [("_labelTrainIds", zero_is_nothing(171))]
    return pairs_by_name(root / "images" / folder, root / "annotations" / folder, endings)


def _pascal_context(root: Path, split: str) -> list[MaskedImage]:
    names = root / "ImageSets" / "SegmentationContext" / f"{split}.txt"
    masks = root / "SegmentationClassContext"
    return pairs_of_list(names, root / "JPEGImages", masks, zero_is_nothing(59), suffix=".jpg")


def _nyu(root: Path, split: str) -> list[MaskedImage]:
    names = root / {"train": "train.txt", "val": "test.txt"}[split]
    return pairs_of_list(names, root / "image", root / "label40", zero_is_nothing(40), suffix=".png")


def _mapillary(root: Path, split: str) -> list[MaskedImage]:
    folder = root / {"train": "training", "val": "validation"}[split]
    masks = next(path for path in (folder / "v1.2" / "labels", folder / "labels", folder) if path.is_dir())
    return pairs_by_name(folder / "images", masks, [("", mapillary_values())])


def _both(train: tuple[str, ...], val: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {"train": train, "val": val}


def _annotations(train: str, val: str) -> dict[str, tuple[str, ...]]:
    return _both(*((f"images/{part}", f"annotations/{part}") for part in (train, val)))


PUBLISHED_LAYOUTS = (
    Layout(
        "cityscapes",
        "cityscapes_19",
        {
            **{split: (f"leftImg8bit/{split}", f"gtFine/{split}") for split in ("train", "val")},
            "train_extra": ("leftImg8bit/train_extra", "refinement_final/train_extra"),
        },
        _cityscapes,
        file_names=r"[^\W\d_-]+(-[^\W\d_]+)*_\d{6}_\d{6}_leftImg8bit\.png",
    ),
    Layout(
        "ade20k",
        "ade20k_150",
        _annotations("training", "validation"),
        _ade20k,
        homes=("ADEChallengeData2016",),
        file_names=r"ADE_(train|val)_\d{8}\.jpg",
    ),
    Layout("coco_stuff_164k", "coco_stuff_171", _annotations("train2017", "val2017"), _coco_stuff_164k),
    Layout("coco_stuff_10k", "coco_stuff_171", _annotations("train2014", "test2014"), _coco_stuff_10k),
    Layout(
        "pascal_context",
        "pascal_context_59",
        {
            split: ("JPEGImages", "SegmentationClassContext", f"ImageSets/SegmentationContext/{split}.txt")
            for split in ("train", "val")
        },
        _pascal_context,
        homes=("VOCdevkit/VOC2010", "VOC2010"),
    ),
    Layout(
        "nyu",
        "nyu_40",
        _both(("image", "label40", "train.txt"), ("image", "label40", "test.txt")),
        _nyu,
    ),
    Layout(
        "mapillary",
        "cityscapes_19",
        _both(("training/images", "training"), ("validation/images", "validation")),
        _mapillary,
        marks=("config.json", "config_v1.2.json", "training/v1.2", "training/instances", "training/panoptic"),
    ),
)

# Own data: folders of images and of masks below the root, by part; case does not count.
IMAGE_FOLDERS = ("images", "leftImg8bit")
MASK_FOLDERS = ("labels", "masks", "annotations", "gtFine")


def own_folders(root: Path, split: str) -> tuple[Path, Path] | None:
    """Return the folders of the images and of the masks of a split of own data, None where there are none."""
    homes, kinds = (*_folders(root, IMAGE_FOLDERS), root), _folders(root, MASK_FOLDERS)
    apart = [
        (images, masks)
        for kind in kinds
        for masks in _splits(kind, split)
        for home in homes
        for images in _splits(home, split)
    ]
    apart.sort(key=lambda pair: pair[0].name.casefold() != pair[1].name.casefold())
    together = [
        (images, masks)
        for home in _splits(root, split)
        for images in _folders(home, IMAGE_FOLDERS)
        for masks in _folders(home, MASK_FOLDERS)
    ]
    return next(iter(apart + together), None)


def own_text(split: str) -> str:
    """Return where own data may lie, for a message."""
    places = (f"images/{split} + {{}}/{split}", f"{split}/images + {split}/{{}}", f"{split} + {{}}/{split}")
    return ", ".join(place.format(kind) for kind in MASK_FOLDERS[:3] for place in places)


def own_files(images: Path, masks: Path, classes: ClassList) -> list[MaskedImage]:
    """Pair the files of own data: a mask has the name of its image, or the endings of Cityscapes in its folders."""
    if classes.values is not None:
        values = mapped_values({value: label for label, value in enumerate(classes.values)})
    else:
        values = plain_values(len(classes.names), palette=classes.palette, ignored_colors=classes.ignored_colors)
    if IMAGE_FOLDERS[1].casefold() not in (images.name.casefold(), images.parent.name.casefold()):
        return pairs_by_name(images, masks, [("", values)])
    endings = [(ending, values) for ending in ("_gtFine_labelTrainIds", "_gtFine_labelIds", "")]
    return pairs_by_name(images, masks, endings, image_ending="_leftImg8bit")


def _folders(home: Path, names: tuple[str, ...]) -> list[Path]:
    """Return the folders in a folder that have one of some names, in the order of the names."""
    found = {folder.name.casefold(): folder for folder in list_folders(home)}
    return [found[name.casefold()] for name in names if name.casefold() in found]


def _splits(home: Path, split: str) -> list[Path]:
    """Return the folders of a split: those of a part by any of its names, others by their own."""
    if split not in PARTS:
        return [home / split] if (home / split).is_dir() else []
    return part_folders(home, check_part(split))
