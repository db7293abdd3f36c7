"""How the published data sets lie on the disk, and own data.

A layout finds the folders of a split below a root and says which values their masks hold; it reads no image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Layout:
    """One arrangement of folders.

    Args:
        name: how it is asked for.
        labels: name of the label set, see `internimage.data.labels`.
        splits: the folder of the images, that of the masks, and the list of names where there is one, by split.
        masks: what the name of a mask has behind the name of its image, and what its values stand for.
        homes: folders below the given root that may hold everything, beside the root itself.
        marks: files and folders of which one must be there to recognize the layout, where own data looks alike.
        file_names: what images of the published data set are called, where own data is often arranged alike.
        image_ending: end of the image's name that masks lack; of listed names the file type.
        mask_homes: folders below that of the masks that may hold them, preferred ones first.
    """

    name: str
    labels: str
    splits: Mapping[str, tuple[str, ...]]
    masks: Sequence[tuple[str, MaskValues]]
    homes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    file_names: str = ""
    image_ending: str = ""
    mask_homes: tuple[str, ...] = ("",)

    def find(self, home: Path, split: str) -> list[MaskedImage]:
        """List the files of a split."""
        images, masks, *lists = (home / part for part in self.splits[split])
        masks = next((folder for inner in self.mask_homes if (folder := masks / inner).is_dir()), masks)
        if lists:
            return pairs_of_list(lists[0], images, masks, self.masks[0][1], suffix=self.image_ending)
        return pairs_by_name(images, masks, self.masks, image_ending=self.image_ending)

    def looks_published(self, home: Path, split: str) -> bool:
        """Whether images of a split have the names of the published data set."""
        images = list_files(home / self.splits[split][0], IMAGE_SUFFIXES) if self.file_names else []
        return not self.file_names or any(re.fullmatch(self.file_names, path.name) for path in images)

    def home(self, root: Path, split: str, *, is_named: bool) -> Path | None:
        """Return the folder that holds what a split needs, None where there is none.

        A layout that was asked for (`is_named`) need not be recognized.
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


def _images_and_masks(train: str, val: str) -> dict[str, tuple[str, ...]]:
    return {split: (f"images/{part}", f"annotations/{part}") for split, part in (("train", train), ("val", val))}


_CITY_ENDINGS = (("_gtFine_labelTrainIds", plain_values(19)), ("_gtFine_labelIds", cityscapes_values()))
PUBLISHED_LAYOUTS = (
    Layout(
        "cityscapes",
        "cityscapes_19",
        {
            **{split: (f"leftImg8bit/{split}", f"gtFine/{split}") for split in ("train", "val")},
            "train_extra": ("leftImg8bit/train_extra", "refinement_final/train_extra"),
        },
        _CITY_ENDINGS,
        file_names=r"[^\W\d_-]+(-[^\W\d_]+)*_\d{6}_\d{6}_leftImg8bit\.png",
        image_ending="_leftImg8bit",
    ),
    Layout(
        "ade20k",
        "ade20k_150",
        _images_and_masks("training", "validation"),
        [("", zero_is_nothing(150))],
        homes=("ADEChallengeData2016",),
        file_names=r"ADE_(train|val)_\d{8}\.jpg",
    ),
    Layout(
        "coco_stuff_164k",
        "coco_stuff_171",
        _images_and_masks("train2017", "val2017"),
        [("_labelTrainIds", plain_values(171)), ("", coco_stuff_values())],
    ),
    Layout(
        "coco_stuff_10k",
        "coco_stuff_171",
        _images_and_masks("train2014", "test2014"),
        [("_labelTrainIds", zero_is_nothing(171))],
    ),
    Layout(
        "pascal_context",
        "pascal_context_59",
        {
            split: ("JPEGImages", "SegmentationClassContext", f"ImageSets/SegmentationContext/{split}.txt")
            for split in ("train", "val")
        },
        [("", zero_is_nothing(59))],
        homes=("VOCdevkit/VOC2010", "VOC2010"),
        image_ending=".jpg",
    ),
    Layout(
        "nyu",
        "nyu_40",
        {"train": ("image", "label40", "train.txt"), "val": ("image", "label40", "test.txt")},
        [("", zero_is_nothing(40))],
        image_ending=".png",
    ),
    Layout(
        "mapillary",
        "cityscapes_19",
        {"train": ("training/images", "training"), "val": ("validation/images", "validation")},
        [("", mapillary_values())],
        marks=("config.json", "config_v1.2.json", "training/v1.2", "training/instances", "training/panoptic"),
        mask_homes=("v1.2/labels", "labels", ""),
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
    endings = [(ending, values) for ending in (*dict(_CITY_ENDINGS), "")]
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
