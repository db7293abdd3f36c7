from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from internimage.data.readers.open_objects import open_detection_dataset
from internimage.data.readers.voc import VOC_CLASSES, open_voc
from internimage.data.readers.yolo import open_yolo


def draw(path: Path, width: int = 100, height: int = 50) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (width, height), (10, 90, 60)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    for name in ("a", "b", "background"):
        draw(tmp_path / f"images/train/{name}.png")
    write(tmp_path / "labels/train/a.txt", "1 0.5 0.5 0.2 0.4\n\n0 0.25 0.5 0.1 0.2\n")
    write(tmp_path / "labels/train/b.txt", "0 0.1 0.1 0.3 0.1 0.3 0.5\n")
    write(tmp_path / "data.yaml", "path: ../datasets/fruit\ntrain: images/train\nnames: {0: apple, 1: pear}\n")
    return tmp_path


def test_yolo(yolo: Path) -> None:
    dataset = open_detection_dataset(yolo, "train", broken="raise")
    assert dataset.class_names == ("apple", "pear") and len(dataset) == 2, "the background is left out"
    assert len(open_detection_dataset(yolo, "train", filter_empty=False)) == 3
    target = dataset[0].target
    np.testing.assert_allclose(target.boxes_xyxy, [[40, 15, 60, 35], [20, 20, 30, 30]], atol=1e-4)
    assert target.labels.tolist() == [1, 0]
    np.testing.assert_allclose(dataset[1].target.boxes_xyxy, [[10, 5, 30, 25]], atol=1e-4)
    masks = dataset[1].target.masks
    assert masks is not None and abs(int(masks.areas[0]) - 200) < 25
    assert target.masks is not None and target.masks.areas.tolist() == [400, 100], "boxes stand for their masks"
    assert dataset.annotation(0).size_hw == (50, 100)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: images/train\nnames: [a, no]\n", "in quotes"),
        ("train: images/train\nnames: {0: a, 2: b}\n", r"must be 0 \.\. 1"),
        ("train: images/train\n", "expected 'names'"),
        ("- 3\n", "expected keys"),
        ("a: [", "no valid YAML"),
        ("x: &a [1,1]\ny: &b [*a,*a]\ntrain: images/train\nnames: !!python/object:os.system x\n", "no valid YAML"),
    ],
)
def test_broken_yaml(yolo: Path, yaml: str, message: str) -> None:
    (yolo / "data.yaml").write_text(yaml)
    with pytest.raises(ValueError, match=message):
        open_detection_dataset(yolo, "train")


@pytest.mark.parametrize(
    ("names", "file"),
    [("names: {'1': pear, '0': apple}", None), ("names: {1.0: pear, 0.0: apple}", None), ("nc: 2", "classes.txt")],
)
def test_names_in_other_forms(yolo: Path, names: str, file: str | None) -> None:
    (yolo / "data.yaml").write_text(f"train: images/train\n{names}\n")
    if file is not None:
        (yolo / file).write_text("apple\npear\n")
    dataset = open_detection_dataset(yolo, "train")
    assert dataset.class_names == ("apple", "pear") and dataset[0].target.labels.tolist() == [1, 0]


def test_two_keys_of_one_number_are_refused(yolo: Path) -> None:
    (yolo / "data.yaml").write_text("train: images/train\nnames: {0: apple, '0': pear, 1: plum}\n")
    with pytest.raises(ValueError, match=r"the keys of 'names' must be 0 \.\. 2"):
        open_detection_dataset(yolo, "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.2 0.4", r"unknown class 2; expected 0\.\.1"),
        ("0.5 0.5 0.5 0.2 0.4", "unknown class 0.5"),
        ("1 0.5 0.5 -0.2 0.4", "width -0.2 and height 0.4 must be positive"),
        ("1 50 50 20 40", "fractions of the image"),
        ("1 0.5 0.5 0.2", "given 4"),
        ("1 0.5 0.5 0.2 0.4 0.9", "given 6"),
        ("1 0.5 0.5 0.2 x", "expected numbers"),
        ("1 0.5 0.5 0.2 nan", "not finite"),
        ("1 0.1 0.1 0.3 0.3 0.5 0.5", "encloses no area"),
    ],
)
def test_broken_yolo_lines(yolo: Path, line: str, message: str) -> None:
    write(yolo / "labels/train/a.txt", f"1 0.5 0.5 0.2 0.4\n{line}\n")
    with pytest.raises(ValueError, match=message) as caught:
        open_detection_dataset(yolo, "train", broken="raise")
    assert "a.txt, line 2: " in str(caught.value)
    dataset = open_detection_dataset(yolo, "train")
    assert len(dataset.problems) == 1 and len(dataset.annotation(0).labels) == 1


def test_yolo_with_classes_txt_lists_and_roboflow_folders(yolo: Path) -> None:
    (yolo / "data.yaml").unlink()
    write(yolo / "classes.txt", "apple\npear\n")
    assert len(open_detection_dataset(yolo, "train", broken="raise")) == 2
    write(yolo / "train.txt", "images/train/a.png\n\nimages/train/gone.png\n")
    dataset = open_yolo([yolo / "train.txt"], ("apple", "pear"))
    assert len(dataset) == 1 and "train.txt, line 3: the image" in str(dataset.problems[0])
    (yolo / "valid").mkdir()
    (yolo / "images/train").rename(yolo / "valid/images")
    (yolo / "labels/train").rename(yolo / "valid/labels")
    write(yolo / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['apple', 'pear']\n")
    assert len(open_detection_dataset(yolo, "val", broken="raise")) == 3
    with pytest.raises(ValueError, match="expected 'pear'"):
        open_detection_dataset(yolo, "val", class_names=("pear", "apple"))


def test_yolo_without_labels(yolo: Path) -> None:
    (yolo / "labels").rename(yolo / "txt")
    with pytest.raises(FileNotFoundError, match=r"looked for at .*labels/train/a\.txt"):
        open_detection_dataset(yolo, "train")


def voc_xml(*objects: str, size: str = "<width>100</width><height>50</height><depth>3</depth>") -> str:
    return f"<annotation><filename>x.jpg</filename><size>{size}</size>{''.join(objects)}</annotation>"


def voc_object(name: str, box: tuple[float, ...], difficult: str = "0") -> str:
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{sides}</bndbox>{part}</object>"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    for year, ids, lists in (
        ("VOC2007", ("000001", "000002"), {"trainval": "000001\n", "test": "000002\n"}),
        ("VOC2012", ("2008_1",), {"train": "", "val": "2008_1\n", "trainval": "2008_1  1\n"}),
    ):
        folder = tmp_path / "VOCdevkit" / year
        for name in ids:
            draw(folder / f"JPEGImages/{name}.jpg")
            objects = (voc_object("dog", (11, 6, 31, 26)), voc_object("person", (1, 1, 100, 50), "1"))
            write(folder / f"Annotations/{name}.xml", voc_xml(*objects))
        for name, content in lists.items():
            write(folder / f"ImageSets/Main/{name}.txt", content)
    return tmp_path


def test_voc(voc: Path) -> None:
    train = open_detection_dataset(voc, "train", broken="raise")
    assert train.class_names == VOC_CLASSES and len(train) == 2, "trainval of both years"
    target = train[0].target
    assert target.boxes_xyxy.tolist() == [[10, 5, 30, 25]], "coordinates count from 1"
    assert target.labels.tolist() == [VOC_CLASSES.index("dog")]
    assert target.ignored_boxes_xyxy.tolist() == [[0, 0, 99, 49]] and target.masks is None
    val = open_detection_dataset(voc, "val", broken="raise")
    assert [val.annotation(i).image_id for i in range(len(val))] == ["000002"]
    assert val.annotation(0).is_special.tolist() == [False, True]


def test_voc_equals_the_recorded_original(tmp_path: Path) -> None:
    """Boxes of the recorded VOC case: first image, as the original data set class returned them."""
    boxes = [[186, 43, 212, 84], [159, 172, 200, 227], [24, 134, 54, 145], [194, 24, 283, 235]]
    difficult = "0010"
    draw(tmp_path / "JPEGImages/000000.png", 320, 240)
    objects = [voc_object(VOC_CLASSES[i], tuple(box), difficult[i]) for i, box in enumerate(boxes)]
    size = "<width>320</width><height>240</height>"
    write(tmp_path / "Annotations/000000.xml", voc_xml(*objects, size=size))
    write(tmp_path / "ImageSets/Main/val.txt", "000000\n")
    target = open_voc([(tmp_path, "val")], broken="raise")[0].target
    assert target.boxes_xyxy.tolist() == [[185, 42, 211, 83], [158, 171, 199, 226], [193, 23, 282, 234]]
    assert target.ignored_boxes_xyxy.tolist() == [[23, 133, 53, 144]] and target.labels.tolist() == [0, 1, 3]


BOMB = '<!DOCTYPE a [<!ENTITY x "xx"><!ENTITY y "&x;&x;">]>\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + voc_xml(voc_object("&y;", (1, 1, 5, 5))), "line 1: document types and entities"),
        ("<a>" * 100 + "</a>" * 100, "nested deeper than 32"),
        ("<annotation>", "no valid XML"),
        ("", "no valid XML"),
        (voc_xml(voc_object("unicorn", (1, 1, 5, 5))), r"object\[0\]: unknown class 'unicorn'"),
        (voc_xml(voc_object("dog", (9, 1, 5, 5))), r"object\[0\]: bad box: .* no positive width"),
        (voc_xml(voc_object("dog", (300, 1, 500, 5))), "lies outside of the image"),
        (voc_xml("<object><name>dog</name></object>"), "expected the numbers xmin"),
        (voc_xml(voc_object("dog", (float("inf"), 1, 5, 5))), "not finite"),
    ],
)
def test_broken_xml(voc: Path, text: str, message: str) -> None:
    write(voc / "VOCdevkit/VOC2007/Annotations/000002.xml", text)
    with pytest.raises(ValueError, match=message) as caught:
        open_detection_dataset(voc, "val", broken="raise")
    assert "000002.xml" in str(caught.value)


def test_xml_beside_the_images(voc: Path) -> None:
    draw(voc / "train/x.png")
    write(voc / "train/x.xml", voc_xml(voc_object("pear", (1, 1, 9, 9)), voc_object("fig", (5, 5, 9, 9)), size=""))
    (voc / "VOCdevkit").rename(voc / "elsewhere")
    dataset = open_detection_dataset(voc, "train", broken="raise")
    assert dataset.class_names == ("fig", "pear") and dataset[0].target.labels.tolist() == [1, 0]
    assert dataset.size_hw(0) == (50, 100)


@pytest.fixture
def open_images(tmp_path: Path) -> Path:
    for name in ("img0", "img1"):
        draw(tmp_path / f"OpenImages/validation/{name}.jpg")
    folder = tmp_path / "annotations"
    write(folder / "class-descriptions-boxable.csv", '/m/animal,Animal\n/m/cat,"Cat, small"\n/m/car,Car\n')
    rows = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"]
    rows += ["img0,x,/m/cat,1,0.1,0.5,0.2,0.6,0,0,0", "img1,x,/m/car,1,0,1,0,1,0,0,1"]
    rows += ["img0,x,/m/animal,1,0.5,0.9,0.2,0.6,0,0,0"]
    write(folder / "validation-annotations-bbox.csv", "\n".join(rows) + "\n")
    write(
        folder / "validation-annotations-human-imagelabels-boxable.csv",
        "ImageID,Source,LabelName,Confidence\nimg0,v,/m/car,0\nimg0,v,/m/cat,1\n",
    )
    tree = {
        "LabelName": "/m/root",
        "Subcategory": [{"LabelName": "/m/animal", "Subcategory": [{"LabelName": "/m/cat"}]}],
    }
    write(folder / "bbox_labels_600_hierarchy.json", json.dumps(tree))
    return tmp_path


def test_open_images(open_images: Path) -> None:
    dataset = open_detection_dataset(open_images, "val", broken="raise")
    assert dataset.class_names == ("Animal", "Cat, small", "Car") and len(dataset) == 2
    np.testing.assert_allclose(dataset[0].target.boxes_xyxy, [[10, 10, 50, 30], [50, 10, 90, 30]], atol=1e-4)
    assert dataset[1].target.labels.tolist() == [2], "groups are learned"
    assert dataset.annotation(1).is_special.tolist() == [True] and dataset.annotation(0).negative_labels == {1, 2}
    assert dataset.ancestors is not None
    assert dataset.ancestors.astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("img0,x,/m/dog,1,0.1,0.5,0.2,0.6,0,0,0", "unknown class '/m/dog'"),
        ("img0,x,/m/cat,1,0.5,0.1,0.2,0.6,0,0,0", "no positive width"),
        ("img0,x,/m/cat,1,0.1,1.5,0.2,0.6,0,0,0", r"must lie in 0\.\.1"),
        ("img0,x,/m/cat,1,a,1.5,0.2,0.6,0,0,0", "must be numbers"),
        ("img0,x,/m/cat", "must be numbers"),
        ("gone,x,/m/cat,1,0.1,0.5,0.2,0.6,0,0,0", "gone.jpg is missing"),
        ("../x,x,/m/cat,1,0.1,0.5,0.2,0.6,0,0,0", "leads out of the folder"),
    ],
)
def test_broken_tables(open_images: Path, line: str, message: str) -> None:
    file = open_images / "annotations/validation-annotations-bbox.csv"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ValueError, match=message):
        open_detection_dataset(open_images, "val", broken="raise")
    assert len(open_detection_dataset(open_images, "val")) == 2


def test_tables_with_other_columns(open_images: Path) -> None:
    write(open_images / "annotations/validation-annotations-bbox.csv", "a,b\n1,2\n")
    with pytest.raises(ValueError, match="line 1: expected the columns ImageID"):
        open_detection_dataset(open_images, "val")


def test_selection_and_bounds(yolo: Path) -> None:
    dataset: Any = open_detection_dataset(yolo, "train")
    twice = dataset.select([1, 0, 1])
    assert [twice.file(i).name for i in range(3)] == ["b.png", "a.png", "b.png"]
    with pytest.raises(IndexError, match="has 3 images"):
        twice.annotation(3)
