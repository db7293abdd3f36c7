"""From a folder to a detection data set: which layout it has and which part of it is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

from internimage.data.detection.coco import open_coco
from internimage.data.detection.dataset import DetectionDataset
from internimage.data.detection.open_images import open_open_images
from internimage.data.detection.problems import Broken
from internimage.data.detection.sizes import check_sizes
from internimage.data.detection.voc import VOC_CLASSES, open_voc, open_xml
from internimage.data.detection.yolo import open_yolo, yolo_sources
from internimage.data.listing import list_files

Split = Literal["train", "val"]
Names = Sequence[str] | None
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "valid", "validation")}
OTHER_TASKS = ("captions", "person_keypoints", "stuff", "panoptic", "image_info")

LOOKED_FOR = """  COCO          annotations/instances_{split}*.json, annotations/*_{split}*.json or
                annotations/{split}.json with the pictures in {split}2017/, {split}/, images/{split}/ or images/
  Roboflow      {split}/_annotations.coco.json beside the pictures
  YOLO          data.yaml, or classes.txt with images/{split}/ and labels/{split}/
  Pascal VOC    VOC2007/ or VOC2012/ (or the folder of a year itself) with Annotations/, JPEGImages/, ImageSets/Main/
  XML           {split}/ with pictures and .xml files side by side
  OpenImages    annotations/class-descriptions-boxable.csv with annotations/*{long}-annotations-bbox.csv and {long}/"""


def open_detection_dataset(
    root: str | PathLike[str],
    split: Split = "val",
    *,
    class_names: Names = None,
    broken: Broken = "leave_out",
    filter_empty: bool | None = None,
) -> DetectionDataset:
    """Open a detection data set by its folder, whatever the layout: COCO, LVIS, Roboflow, YOLO, VOC, OpenImages.

    Args:
        root: folder of the data set.
        split: "train" or "val"; folders named "valid" and "validation" are found, too.
        class_names: expected classes in the order of their numbers, as a rule those of the training part; None takes
            those of the annotations.
        broken: what happens to broken annotations: "leave_out" warns and drops them, "raise" refuses the data set.
        filter_empty: leave out pictures without any annotated object and tiny ones; None does so for "train" in every
            layout but OpenImages, as in the original.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: `root` is no folder or has none of the known layouts; the message lists them.
        ValueError: an annotation file is damaged, or its classes are not the expected ones.
    """
    if split not in SPLIT_NAMES:
        raise ValueError(f"split must be 'train' or 'val', given {split!r}")
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; give the folder of the data set")
    for find, is_filtered in ((_coco, True), (_yolo, True), (_voc, True), (_open_images, False), (_xml, True)):
        dataset = find(root, split, class_names, broken)
        if dataset is not None:
            check_sizes(dataset)
            wanted = (split == "train" and is_filtered) if filter_empty is None else filter_empty
            return dataset.for_training() if wanted else dataset
    looked_for = LOOKED_FOR.format(split=split, long=SPLIT_NAMES[split][-1])
    raise FileNotFoundError(f"{root} holds no detection data set with a part {split!r}. Looked for\n{looked_for}")


def _coco(root: Path, split: Split, names: Names, broken: Broken) -> DetectionDataset | None:
    found = _coco_files(root, split)
    return None if found is None else open_coco(*found, root=root, class_names=names, broken=broken)


def _coco_files(root: Path, split: Split) -> tuple[Path, Path] | None:
    """Return the annotation file and the folder of its pictures."""
    for name in SPLIT_NAMES[split]:
        beside = root / name / "_annotations.coco.json"
        if beside.is_file():
            return beside, beside.parent
        pattern = re.compile(rf"(?:(?P<kind>.+)[_-])?(?P<part>{name}(?:\d{{4}})?)")
        matches = [(file, pattern.fullmatch(file.stem)) for file in _entries(root / "annotations", ".json")]
        usable = [(file, match) for file, match in matches if match and match["kind"] not in OTHER_TASKS]
        usable.sort(key=lambda entry: (entry[1]["kind"] != "instances", entry[1]["kind"] is not None, entry[0].name))
        for file, match in usable:
            if match["kind"] is not None and match["kind"].startswith("lvis"):
                return file, root  # its names of pictures begin with the folder
            folders = (match["part"], f"images/{match['part']}", name, f"images/{name}", "images", "Images")
            for folder in folders:
                if (root / folder).is_dir():
                    return file, root / folder
            return file, root  # the pictures are looked for by their names
    return None


def _yolo(root: Path, split: Split, names: Names, broken: Broken) -> DetectionDataset | None:
    found = yolo_sources(root, SPLIT_NAMES[split])
    if found is None:
        return None
    pictures, own_names = found
    if names is not None and tuple(names) != own_names:
        raise ValueError(f"{root} has the classes {', '.join(own_names[:10])}, expected {', '.join(names[:10])}")
    return open_yolo(pictures, own_names, name=f"{root} ({split})", broken=broken)


def _voc(root: Path, split: Split, names: Names, broken: Broken) -> DetectionDataset | None:
    """Years of VOC: the test lists are for validation where there are any, then trainval is for training."""
    years = [
        folder
        for folder in (root, *(base / year for base in (root, root / "VOCdevkit") for year in ("VOC2007", "VOC2012")))
        if (folder / "ImageSets" / "Main").is_dir() and (folder / "Annotations").is_dir()
    ]
    lists = {folder: {file.stem for file in _entries(folder / "ImageSets" / "Main", ".txt")} for folder in years}
    has_test = any("test" in own for own in lists.values())
    wanted = {"train": "trainval" if has_test else "train", "val": "test" if has_test else "val"}[split]
    folders = [(folder, wanted) for folder in years if wanted in lists[folder]]
    if not folders:
        return None
    return open_voc(folders, class_names=VOC_CLASSES if names is None else names, broken=broken)


def _xml(root: Path, split: Split, names: Names, broken: Broken) -> DetectionDataset | None:
    for name in SPLIT_NAMES[split]:
        files = _entries(root / name, ".xml")
        if files:
            pairs = [(file, file.with_suffix("")) for file in files]
            return open_xml(pairs, class_names=names, name=str(root / name), broken=broken)
    return None


def _open_images(root: Path, split: Split, names: Names, broken: Broken) -> DetectionDataset | None:
    folder = root / "annotations"
    part = {"train": "train", "val": "validation"}[split]
    classes = folder / "class-descriptions-boxable.csv"
    tables = [file for file in _entries(folder, ".csv") if file.name.endswith(f"{part}-annotations-bbox.csv")]
    if not classes.is_file() or not tables:
        return None
    folders = (root / part, root / "OpenImages" / part, root / "images" / part)
    pictures = next((entry for entry in folders if entry.is_dir()), None)
    if pictures is None:
        raise FileNotFoundError(
            f"{tables[0]} has no folder with its pictures; looked for {', '.join(map(str, folders))}"
        )
    labels = folder / f"{part}-annotations-human-imagelabels-boxable.csv"
    hierarchy = folder / "bbox_labels_600_hierarchy.json"
    dataset = open_open_images(
        tables[0],
        pictures,
        classes,
        image_labels_file=labels if labels.is_file() else None,
        hierarchy_file=hierarchy if hierarchy.is_file() else None,
        broken=broken,
    )
    if names is not None and tuple(names) != dataset.class_names:
        raise ValueError(f"{classes} has other classes than expected: {', '.join(names[:10])}")
    return dataset


def _entries(folder: Path, suffix: str) -> list[Path]:
    """Return the files of a folder with one ending, sorted; nothing where there is no folder."""
    return list_files(folder, {suffix}, recursive=False) if folder.is_dir() else []
