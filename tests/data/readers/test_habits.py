"""Habits of tools that write annotations: each file means the same as the plain one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from internimage.data.objects.dataset import DetectionDataset
from internimage.data.readers.coco import open_coco
from internimage.data.readers.voc import open_xml
from internimage.data.readers.yolo import open_yolo

Document = dict[str, Any]
Edit = Callable[[Document], object]
BOXES = {1: [(0, [10, 12, 30, 20]), (1, [50, 5, 20, 40])], 2: [(1, [8, 8, 64, 48])]}


def plain() -> Document:
    annotations: list[Document] = []
    for image_id, objects in BOXES.items():
        for label, (x, y, w, h) in objects:
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            entry = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label + 1, "iscrowd": 0}
            annotations.append({**entry, "bbox": [x, y, w, h], "area": w * h, "segmentation": [outline]})
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 80, "height": 60} for i in BOXES],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "apple"}, {"id": 2, "name": "pear"}],
    }


def of_objects(key: str, change: Callable[[Any], Any]) -> Edit:
    return lambda document: [entry.update({key: change(entry[key])}) for entry in document["annotations"]]


def of_images(key: str, change: Callable[[Any], Any]) -> Edit:
    return lambda document: [entry.update({key: change(entry[key])}) for entry in document["images"]]


def lacking(where: str, *keys: str) -> Edit:
    return lambda document: [entry.pop(key) for entry in document[where] for key in keys]


def pairs(part: list[float]) -> list[list[float]]:
    return [[part[i], part[i + 1]] for i in range(0, len(part), 2)]


def both(*edits: Edit) -> Edit:
    return lambda document: [edit(document) for edit in edits]


SAME: dict[str, Edit] = {
    "image ids as text (VIA)": of_objects("image_id", str),
    "image ids with a point (pandas)": of_objects("image_id", float),
    "image ids of images as text": of_images("id", str),
    "image ids with zeros": both(of_images("id", "{:06}".format), of_objects("image_id", "{:06}".format)),
    "image ids with zeros on one side": of_images("id", "{:06}".format),
    "class ids with a point": of_objects("category_id", float),
    "class ids as text": of_objects("category_id", str),
    "class ids of categories as text": lambda d: [c.update(id=str(c["id"])) for c in d["categories"]],
    "sizes with a point": both(of_images("width", float), of_images("height", float)),
    "sizes as text": both(of_images("width", str), of_images("height", "{}.0".format)),
    "sizes not measured": both(of_images("width", lambda _: -1), of_images("height", lambda _: -1)),
    "sizes of nothing": both(of_images("width", lambda _: 0), of_images("height", lambda _: None)),
    "no sizes": lacking("images", "width", "height"),
    "boxes of texts": of_objects("bbox", lambda box: [str(side) for side in box]),
    "boxes as one text": of_objects("bbox", str),
    "no boxes": lacking("annotations", "bbox"),
    "empty boxes": of_objects("bbox", lambda _: []),
    "boxes of nothing": of_objects("bbox", lambda _: None),
    "polygons of texts": of_objects("segmentation", lambda parts: [[str(n) for n in part] for part in parts]),
    "a flat polygon (VIA)": of_objects("segmentation", lambda parts: parts[0]),
    "pairs": of_objects("segmentation", lambda parts: [pairs(part) for part in parts]),
    "flat pairs": of_objects("segmentation", lambda parts: pairs(parts[0])),
    "area 0": of_objects("area", lambda _: 0),
    "area as text": of_objects("area", "{}.0".format),
    "area of nothing": of_objects("area", lambda _: None),
    "negative area": of_objects("area", lambda _: -1.0),
    "no area": lacking("annotations", "area"),
    "area NaN": of_objects("area", lambda _: float("nan")),
    "crowds as text": of_objects("iscrowd", str),
    "crowds with a point": of_objects("iscrowd", "{}.0".format),
    "crowds as a word": of_objects("iscrowd", lambda _: "false"),
    "crowds of nothing": of_objects("iscrowd", lambda _: None),
    "no crowds": lacking("annotations", "iscrowd"),
    "ignore as text": lambda d: [entry.update(ignore="0") for entry in d["annotations"]],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for image_id in BOXES:
        PIL.Image.new("RGB", (80, 60), (90, 30, 10)).save(tmp_path / f"{image_id}.png")
    return tmp_path


def opened(folder: Path, edit: Edit, **options: Any) -> DetectionDataset:
    document = plain()
    edit(document)
    (folder / "train.json").write_text(json.dumps(document))
    return open_coco(folder / "train.json", folder, **options)


def contents(dataset: DetectionDataset) -> list[Any]:
    """Return what training and metrics see of each image."""
    seen: list[Any] = []
    for i in range(len(dataset)):
        target, annotation = dataset[i].target, dataset.annotation(i)
        masks = None if target.masks is None else target.masks.to_bool().tolist()
        seen.append((target.boxes_xyxy.tolist(), target.labels.tolist(), masks, target.ignored_boxes_xyxy.tolist()))
        seen.append(
            (
                annotation.size_hw,
                annotation.boxes_xyxy.tolist(),
                annotation.is_special.tolist(),
                annotation.areas.tolist(),
            )
        )
    return seen


@pytest.mark.parametrize("habit", SAME)
def test_coco_files_that_mean_the_same(folder: Path, habit: str) -> None:
    expected = contents(opened(folder, lambda _: None, broken="raise"))
    assert contents(opened(folder, SAME[habit], broken="raise")) == expected


def test_ids_that_differ_as_texts_stay_apart(folder: Path) -> None:
    def renamed(document: Document) -> None:
        for entry, name in zip(document["images"], ("1", "01"), strict=True):
            entry["id"] = name
        for entry in document["annotations"]:
            entry["image_id"] = {1: "1", 2: "01"}[entry["image_id"]]

    expected = contents(opened(folder, lambda _: None, broken="raise"))
    assert contents(opened(folder, renamed, broken="raise")) == expected
    ambiguous = opened(folder, both(renamed, of_objects("image_id", lambda _: 1)))
    assert len(ambiguous.problems) == 3 and "no image has the id 1" in ambiguous.problems[0].reason


@pytest.mark.parametrize("value", [1, "1", "1.0", True, "true", " yes "])
@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_crowds_however_they_are_written(folder: Path, key: str, value: Any) -> None:
    dataset = opened(folder, lambda d: d["annotations"][0].update({key: value}), broken="raise")
    assert dataset.annotation(0).is_special.tolist() == [True, False]
    assert dataset[0].target.ignored_boxes_xyxy.tolist() == [[10, 12, 40, 32]]


def test_a_flag_that_is_none(folder: Path) -> None:
    dataset = opened(folder, lambda d: d["annotations"][0].update(iscrowd="perhaps"))
    [problem] = dataset.problems
    assert problem.place == "annotations[0] (id 1)" and "expected 0 or 1, given 'perhaps'" in problem.reason
    assert len(dataset[0].target) == 2


def test_a_stray_part_of_a_mask_costs_only_itself(folder: Path) -> None:
    expected = contents(opened(folder, lambda _: None))
    for stray in ([1, 1, 2, 2], [], [1, 2, 3, 4, 5], "x", None, [1, 1, 2, 2, float("inf"), 5], [[1, 1], [2, 2]]):
        dataset = opened(folder, lambda d, stray=stray: d["annotations"][0]["segmentation"].append(stray))
        assert contents(dataset) == expected
        [problem] = dataset.problems
        assert "bad polygon" in problem.reason and "1 of 2 parts of its mask are left out" in problem.reason


def test_masks_give_the_boxes_of_run_lengths(folder: Path) -> None:
    runs = [3 * 60 + 10, 20, 40, 20, 80 * 60 - 4 * 60 - 30]  # columns 3 and 4, rows 10..29
    change = {"segmentation": {"size": ["60", 80.0], "counts": [str(run) for run in runs]}, "bbox": []}
    dataset = opened(folder, lambda d: d["annotations"][0].update(change), broken="raise")
    assert dataset[0].target.boxes_xyxy.tolist()[0] == [3, 10, 5, 30]
    higher = {"size": [60, 80], "counts": [3 * 60 + 10, 60, 80 * 60 - 4 * 60 - 10]}
    dataset = opened(folder, lambda d: d["annotations"][0].update(segmentation=higher, bbox=None), broken="raise")
    assert dataset[0].target.boxes_xyxy.tolist()[0] == [3, 0, 5, 60], "from row 10 to the end, then rows 0..9"


XML = """<annotation><filename>{filename}</filename><size><width>{width}</width><height>{height}</height></size>
<object><name>apple</name><difficult>{difficult}</difficult>
<bndbox><xmin>{xmin}</xmin><ymin>13</ymin><xmax>41</xmax><ymax>33</ymax></bndbox></object></annotation>"""


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"width": "80.0", "height": " 60 "},
        {"width": -1, "height": -1},
        {"width": "", "height": "?"},
        {"width": "9" * 5001, "height": 60},
        {"difficult": "0.0"},
        {"difficult": ""},
        {"difficult": "False"},
        {"xmin": "11.0"},
        {"xmin": " 11 "},
    ],
)
def test_xml_files_that_mean_the_same(folder: Path, change: dict[str, Any]) -> None:
    values = {"filename": "1.png", "width": 80, "height": 60, "difficult": 0, "xmin": 11} | change
    (folder / "1.xml").write_text(XML.format(**values))
    dataset = open_xml([(folder / "1.xml", folder / "1")], broken="raise")
    assert dataset.size_hw(0) == (60, 80)
    assert dataset[0].target.boxes_xyxy.tolist() == [[10, 12, 40, 32]]


@pytest.mark.parametrize(("text", "count"), [("1", 0), ("1.0", 0), ("true", 0), ("Unspecified", 1)])
def test_difficult_objects_however_they_are_written(folder: Path, text: str, count: int) -> None:
    (folder / "1.xml").write_text(XML.format(filename="1.png", width=80, height=60, difficult=text, xmin=11))
    dataset = open_xml([(folder / "1.xml", folder / "1")])
    assert len(dataset[0].target) == count and len(dataset.problems) == count


def test_yolo_numbers(folder: Path) -> None:
    for image_id in BOXES:
        (folder / f"{image_id}.txt").write_text("")
    (folder / "1.txt").write_text("1.0 0.5 5e-1 +0.25 .5\r\n\ufeff\n")
    dataset = open_yolo([folder], ["apple", "pear"])
    assert dataset[0].target.labels.tolist() == [1]
    assert dataset[0].target.boxes_xyxy.tolist() == [[30, 15, 50, 45]]


def test_documents_are_not_changed() -> None:
    document = plain()
    before = copy.deepcopy(document)
    SAME["no boxes"](document)
    assert document != before, "the edits of this file do something"
