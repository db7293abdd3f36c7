"""From a folder to a detection data set: which layout it has and which part of it is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path

from internimage.data.class_list import find_class_list, given_class_list
from internimage.data.class_names import some_names
from internimage.data.listing import list_files
from internimage.data.objects.dataset import DetectionDataset
from internimage.data.objects.sizes import check_sizes
from internimage.data.parts import (
    Part,
    check_part,
    find_part,
    names_of,
    only_folder,
    part_folders,
    part_of,
    say_inner_folder,
    spelled,
)
from internimage.data.readers.coco import open_coco
from internimage.data.readers.open_images import open_open_images
from internimage.data.readers.voc import open_xml
from internimage.data.readers.voc_layout import VocLayout
from internimage.data.readers.yolo import open_yolo, yolo_sources
from internimage.data.untrusted.problems import Broken

Names = Sequence[str] | None
OTHER_TASKS = ("captions", "person_keypoints", "stuff", "panoptic", "image_info")
BOX_TABLE = re.compile(r"(?:.*[-_])?([A-Za-z]+)-annotations-bbox\.csv")

LOOKED_FOR = """  COCO          annotations/instances_{split}*.json, annotations/*_{split}*.json or
                annotations/{split}.json with the images in {split}2017/, {split}/, images/{split}/ or images/
  Roboflow      {split}/_annotations.coco.json beside the images
  YOLO          data.yaml, or classes.txt with images/{split}/ and labels/{split}/
  Pascal VOC    VOC2007/ or VOC2012/ (or the folder of a year itself) with Annotations/, JPEGImages/, ImageSets/Main/
  XML           {split}/ with images and .xml files side by side
  OpenImages    annotations/class-descriptions-boxable.csv with annotations/*{long}-annotations-bbox.csv and {long}/"""


def open_detection_dataset(
    root: str | PathLike[str],
    split: Part = "val",
    *,
    class_names: Sequence[str] | str | PathLike[str] | None = None,
    broken: Broken = "leave_out",
    filter_empty: bool | None = None,
    test_stands_in: bool = True,
) -> DetectionDataset:
    """Open a detection data set by its folder, whatever the layout: COCO, LVIS, Roboflow, YOLO, VOC, OpenImages.

    Args:
        root: folder of the data set.
        split: "train", "val" or "test"; files and folders may have other names of these parts, see
            `internimage.data.parts`.
        class_names: expected classes in the order of their indices, as a rule those of the training part, or a file
            that holds them; None takes those of the annotations.
        broken: what happens to broken annotations: "leave_out" warns and drops them, "raise" refuses the data set.
        filter_empty: leave out images without any annotated object and tiny ones; None does so for "train" in every
            layout but OpenImages, as in the original.
        test_stands_in: take the test part, with a warning, where "val" is asked for and is not there.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: `root` is no folder or has none of the known layouts; the message lists them.
        ValueError: an annotation file is damaged, or its classes are not the expected ones.
    """
    wanted = check_part(split)
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; give the folder of the data set, archives unpacked")
    names = None if class_names is None else given_class_list(class_names).names
    open_part = partial(_open_part, names=names, broken=broken)
    found = find_part(wanted, partial(open_part, root), root, test_stands_in=test_stands_in)
    if found is None and (inner := only_folder(root)) is not None:
        found = find_part(wanted, partial(open_part, inner), inner, test_stands_in=test_stands_in)
        if found is not None:
            say_inner_folder(root, inner)
    if found is None:
        looked_for = LOOKED_FOR.format(split=split, long="validation" if wanted == "val" else wanted)
        raise FileNotFoundError(
            f"{root} holds no detection data set with a part {split!r} ({spelled(wanted)}). Looked for\n{looked_for}"
        )
    dataset, is_filtered = found
    return dataset.for_training() if (is_filtered if filter_empty is None else filter_empty) else dataset


def _open_part(root: Path, part: Part, names: Names, broken: Broken) -> tuple[DetectionDataset, bool] | None:
    """Open a part in the first layout that holds it; also return whether training leaves some images out."""
    for find, is_filtered in ((_coco, True), (_yolo, True), (_voc, True), (_open_images, False), (_xml, True)):
        dataset = find(root, part, names, broken)
        if dataset is not None:
            check_sizes(dataset)
            return dataset, part == "train" and is_filtered
    return None


def _coco(root: Path, part: Part, names: Names, broken: Broken) -> DetectionDataset | None:
    found = _coco_files(root, part)
    return None if found is None else open_coco(*found, root=root, class_names=names, broken=broken)


def _coco_files(root: Path, part: Part) -> tuple[Path, Path] | None:
    """Return the annotation file and the folder of its images."""
    for folder in part_folders(root, part):
        if (folder / "_annotations.coco.json").is_file():
            return folder / "_annotations.coco.json", folder
    files = [(file, *_kind_and_part(file.stem)) for file in _entries(root / "annotations", ".json")]
    usable = [entry for entry in files if part_of(entry[2]) == part and entry[1] not in OTHER_TASKS]
    order = names_of((entry[2] for entry in usable), part)
    usable.sort(key=lambda entry: (order.index(entry[2]), entry[1] != "instances", entry[1] != "", entry[0].name))
    for file, kind, name in usable:
        if kind.startswith("lvis"):
            return file, root  # its names of images begin with the folder
        folders = [root / name, root / "images" / name, *part_folders(root, part), *part_folders(root / "images", part)]
        folders += [root / "images", root / "Images"]
        for folder in folders:
            if folder.is_dir():
                return file, folder
        return file, root  # the images are looked for by their names
    return None


def _kind_and_part(stem: str) -> tuple[str, str]:
    """Divide the name of an annotation file: "instances_val2017" is ("instances", "val2017"), "val" is ("", "val")."""
    ends = [0, *(match.end() for match in re.finditer("[_-]", stem))]
    start = next((end for end in ends if part_of(stem[end:]) is not None), len(stem))
    return stem[: max(0, start - 1)], stem[start:]


def _yolo(root: Path, part: Part, names: Names, broken: Broken) -> DetectionDataset | None:
    found = yolo_sources(root, part)
    if found is None:
        return None
    images, own_names = found
    if names is not None and tuple(names) != own_names:
        raise ValueError(f"{root} has the classes {some_names(own_names)}, expected {some_names(names)}")
    return open_yolo(images, own_names, name=f"{root} ({part})", broken=broken)


def _voc(root: Path, part: Part, names: Names, broken: Broken) -> DetectionDataset | None:
    layout = VocLayout.find(root)
    return None if layout is None else layout.open(part, names, broken)


def _xml(root: Path, part: Part, names: Names, broken: Broken) -> DetectionDataset | None:
    for folder in part_folders(root, part):
        files = _entries(folder, ".xml")
        if files:
            if names is None and (listed := find_class_list(root)) is not None:
                names = listed.names
            pairs = [(file, file.with_suffix("")) for file in files]
            return open_xml(pairs, class_names=names, name=str(folder), broken=broken)
    return None


def _open_images(root: Path, part: Part, names: Names, broken: Broken) -> DetectionDataset | None:
    folder = root / "annotations"
    classes = folder / "class-descriptions-boxable.csv"
    tables = [(file, match[1]) for file in _entries(folder, ".csv") if (match := BOX_TABLE.fullmatch(file.name))]
    order = names_of((name for _, name in tables), part)
    if not classes.is_file() or not order:
        return None
    table, name = next(entry for entry in tables if entry[1] == order[0])
    homes = (root, root / "OpenImages", root / "images")
    images = next((entry for home in homes for entry in part_folders(home, part)), None)
    if images is None:
        looked_for = ", ".join(str(home / name) for home in homes)
        raise FileNotFoundError(f"{table} has no folder with its images; looked for {looked_for}")
    labels = folder / f"{name}-annotations-human-imagelabels-boxable.csv"
    hierarchy = folder / "bbox_labels_600_hierarchy.json"
    dataset = open_open_images(
        table,
        images,
        classes,
        image_labels_file=labels if labels.is_file() else None,
        hierarchy_file=hierarchy if hierarchy.is_file() else None,
        broken=broken,
    )
    if names is not None and tuple(names) != dataset.class_names:
        raise ValueError(f"{classes} has other classes than expected: {some_names(names)}")
    return dataset


def _entries(folder: Path, suffix: str) -> list[Path]:
    """Return the files of a folder with one ending, sorted; nothing where there is no folder."""
    return list_files(folder, {suffix}, recursive=False) if folder.is_dir() else []
