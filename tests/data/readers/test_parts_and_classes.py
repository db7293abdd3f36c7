"""Parts of detection data by any name, and own classes in the folders of Pascal VOC."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest

from internimage.data.objects.dataset import DetectionDataset
from internimage.data.readers.open_objects import open_detection_dataset
from internimage.data.readers.voc import VOC_CLASSES


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (100, 50)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def coco(root: Path, part: str, folder: str, file: str = "{part}/_annotations.coco.json") -> None:
    """One image, called like its part, with one apple."""
    draw(root / folder / f"{part}.png")
    document = {
        "images": [{"id": 1, "file_name": f"{part}.png", "width": 100, "height": 50}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "apple"}],
    }
    write(root / file.format(part=part), json.dumps(document))


def files(dataset: DetectionDataset) -> list[str]:
    return [dataset.file(i).stem for i in range(len(dataset))]


PARTS = [("train", "valid", "test"), ("Train", "Val", "Test"), ("training", "validation", "testing")]
NAMES = [*PARTS, ("TRAIN", "dev", "TEST")]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("layout", ["coco", "coco images", "roboflow", "yolo", "yolo yaml", "yolo parts", "xml"])
def test_parts_by_any_name(
    layout: str, names: tuple[str, str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in names:
        if layout == "coco":
            coco(tmp_path, name, f"images/{name}", "annotations/{part}.json")
        elif layout == "coco images":
            coco(tmp_path, name, "images", "annotations/instances_{part}.json")
        elif layout == "roboflow":
            coco(tmp_path, name, name)
        elif layout == "xml":
            draw(tmp_path / name / f"{name}.png")
            write(tmp_path / name / f"{name}.xml", xml("apple"))
        else:
            images = f"{name}/images" if layout == "yolo parts" else f"images/{name}"
            draw(tmp_path / images / f"{name}.png")
            write(tmp_path / images.replace("images", "labels") / f"{name}.txt", "0 0.5 0.5 0.2 0.4\n")
            write(tmp_path / "classes.txt", "apple\n")
    if layout == "yolo yaml":
        train, val, test = names
        yaml = f"train: ../images/{train}\nvalid: ../images/{val}\nTEST: ../images/{test}\nnames: [apple]\n"
        write(tmp_path / "data.yaml", yaml)
    for split, name in zip(("train", "val", "test"), names, strict=True):
        dataset = open_detection_dataset(tmp_path, split, broken="raise")  # type: ignore[arg-type]
        assert files(dataset) == [name] and dataset.class_names == ("apple",)
    assert not [record for record in caplog.records if "part" in record.getMessage()]


def test_test_stands_in_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    coco(tmp_path, "train", "train"), coco(tmp_path, "test", "test")
    assert files(open_detection_dataset(tmp_path, "test")) == ["test"] and not caplog.records
    with pytest.raises(FileNotFoundError, match=r"part 'val' \(val, valid, validation"):
        open_detection_dataset(tmp_path, "val", test_stands_in=False)
    assert files(open_detection_dataset(tmp_path)) == ["test"] and "has no validation part" in caplog.text


def test_the_part_is_looked_for_in_all_layouts_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    coco(tmp_path, "test", "test")
    draw(tmp_path / "images/val/v.png")
    write(tmp_path / "labels/val/v.txt", "0 0.5 0.5 0.2 0.4\n")
    write(tmp_path / "classes.txt", "apple\n")
    assert files(open_detection_dataset(tmp_path)) == ["v"] and not caplog.records


def test_the_folder_above_is_accepted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    coco(tmp_path / "fruit", "train", "train"), coco(tmp_path / "fruit", "valid", "valid")
    assert files(open_detection_dataset(tmp_path, "val")) == ["valid"]
    assert "holds the data set in its folder fruit" in caplog.text
    coco(tmp_path / "cars", "valid", "valid")
    with pytest.raises(FileNotFoundError, match="holds no detection data set"):
        open_detection_dataset(tmp_path, "val")


def xml(*names: str) -> str:
    box = "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>61</xmax><ymax>41</ymax></bndbox>"
    objects = "".join(f"<object><name>{name}</name>{box}</object>" for name in names)
    return f"<annotation><size><width>100</width><height>50</height></size>{objects}</annotation>"


def voc(root: Path, parts: dict[str, dict[str, tuple[str, ...]]]) -> Path:
    """Images with the objects of their names, in the lists of their parts."""
    for part, images in parts.items():
        for image, names in images.items():
            draw(root / f"JPEGImages/{image}.jpg")
            write(root / f"Annotations/{image}.xml", xml(*names))
        write(root / f"ImageSets/Main/{part}.txt", "".join(f"{image}\n" for image in images))
    return root


def objects(dataset: DetectionDataset) -> list[list[str]]:
    return [[dataset.class_names[label] for label in dataset.labels(i)] for i in range(len(dataset))]


OWN = {"train": {"a": ("helmet", "person"), "b": ("vest",)}, "val": {"c": ("person",), "d": ("helmet",)}}


@pytest.mark.parametrize("home", ["", "VOC2007", "VOCdevkit/VOC2012"])
def test_own_classes_in_the_folders_of_voc(home: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    voc(tmp_path / home, OWN)
    train, val = (open_detection_dataset(tmp_path, part, broken="raise") for part in ("train", "val"))
    assert train.class_names == val.class_names == ("helmet", "person", "vest")
    assert objects(train) == [["helmet", "person"], ["vest"]] and objects(val) == [["person"], ["helmet"]]
    assert not caplog.records


def test_names_of_the_training_part_count_for_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = voc(tmp_path, {**OWN, "val": {"c": ("person", "unicorn", "Helmet"), "d": ("unicorn",)}})
    val = open_detection_dataset(root)
    assert val.class_names == ("helmet", "person", "vest") and objects(val) == [["person", "helmet"], []]
    assert "2 objects are left out, whose classes are not among the expected ones: 'unicorn' (2)" in caplog.text
    with pytest.raises(ValueError, match="unknown class 'unicorn'"):
        open_detection_dataset(root, broken="raise")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "vest\nhelmet\nperson\n"),
        ("classes.json", '["vest", "helmet", "person"]'),
        ("labels.txt", "vest\nhelmet\nperson\n"),
        ("obj.names", "vest\nhelmet\nperson\n"),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\nvest:1,0,0::\nhelmet:2,0,0::\nperson:3,0,0::",
        ),
        (
            "label_map.pbtxt",
            "item { id: 2 name: 'helmet' }\nitem {\n  id: 1\n  name: \"vest\"\n}\nitem { id: 3 name: 'person' }",
        ),
    ],
)
@pytest.mark.parametrize("home", ["", "VOC2007"])
def test_a_class_list_beside_voc(file: str, text: str, home: str, tmp_path: Path) -> None:
    voc(tmp_path / home, OWN)
    write(tmp_path / file, text)
    for part in ("train", "val"):
        assert open_detection_dataset(tmp_path, part, broken="raise").class_names == ("vest", "helmet", "person")
    write(tmp_path / "mine.txt", "person\nhelmet\nvest\nhat\n")
    given = open_detection_dataset(tmp_path, "val", class_names=tmp_path / "mine.txt", broken="raise")
    assert given.class_names == ("person", "helmet", "vest", "hat") and objects(given) == [["person"], ["helmet"]]


def test_names_of_voc_alone_are_the_published_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = voc(tmp_path, {"trainval": {"a": ("dog", "person")}, "test": {"b": ("person",)}})
    assert open_detection_dataset(root, "train").class_names == VOC_CLASSES and not caplog.records
    assert files(open_detection_dataset(root)) == ["b"]
    assert "as published, the list 'test' is measured" in caplog.text


def test_own_data_with_a_test_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = voc(tmp_path, {**OWN, "test": {"e": ("helmet",)}, "trainval": {"a": (), "b": ("vest",), "c": (), "d": ()}})
    voc(root, OWN)
    assert [files(open_detection_dataset(root, part)) for part in ("train", "val", "test")] == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
    ]
    assert not caplog.records
    (root / "ImageSets/Main/val.txt").unlink()
    assert files(open_detection_dataset(root)) == ["e"] and "has no validation part" in caplog.text
