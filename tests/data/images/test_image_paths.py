from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from internimage.data.images.image_paths import ImagePaths
from internimage.data.label_maps.open import open_segmentation_dataset
from internimage.data.readers.open_objects import open_detection_dataset


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (80, 60), (90, 30, 10)).save(path)
    return path


FOREIGN = (
    "images/train/one.png",
    "./one.png",
    "images\\train\\one.png",
    "..\\images\\train\\one.png",
    "../one.png",
    "C:\\Users\\ann\\fruit\\images\\train\\one.png",
    "c:/Users/ann/fruit/images/train/one.png",
    "\\\\server\\share\\images\\train\\one.png",
    "/home/ann/fruit/images/train/one.png",
    "/one.png",
    "file:///home/ann/images/train/one.png",
    "https://images.example/bucket/train/one.png?sig=a%2Fb&x=1#top",
    "%2Fdata%2Fimages%2Ftrain%2Fone.png",
    "train/ONE.PNG",
    " one.png ",
)


@pytest.mark.parametrize("name", FOREIGN)
def test_names_of_other_machines(tmp_path: Path, name: str) -> None:
    expected = image(tmp_path / "images" / "train" / "one.png")
    image(tmp_path / "images" / "val" / "one.png")
    assert ImagePaths(expected.parent, tmp_path).find(name) == expected


def test_names_that_stand_for_themselves(tmp_path: Path) -> None:
    for name in ("a%20b.png", "a b.png", "a\\b.png", "x?y#z.png", "Grün.png", "b.png"):
        path = image(tmp_path / name)
        assert ImagePaths(tmp_path).find(name) == path
    assert ImagePaths(tmp_path).find("folder\\a%20b.png") == tmp_path / "a%20b.png"
    assert ImagePaths(tmp_path).find("x%3Fy%23z.png") == tmp_path / "x?y#z.png"
    assert ImagePaths(tmp_path).find("Gru\u0308n.png") == tmp_path / "Grün.png", "macOS writes accents apart"


def test_folders_between_are_found(tmp_path: Path) -> None:
    one = image(tmp_path / "images" / "day" / "one.png")
    assert ImagePaths(tmp_path / "images", tmp_path).find("one.png") == one
    assert ImagePaths(tmp_path / "images", tmp_path).find("D:\\x\\day\\one.png") == one


def test_nothing_is_guessed(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a" / "one.png")
    image(tmp_path / "images" / "b" / "one.png")
    image(tmp_path / "other" / "two.png")
    image(tmp_path / "train" / "three.png")
    image(tmp_path.parent / "outside.png")
    paths = ImagePaths(tmp_path / "images", tmp_path, part="val")
    with pytest.raises(ValueError, match=r"'C:\\\\x\\\\one\.png' is not clear: it may be .*a/one\.png, .*b/one\.png"):
        paths.find("C:\\x\\one.png")
    with pytest.raises(ValueError, match=r"images/two\.png is missing, and no other file below .* ends in the same"):
        paths.find("two.png")  # a name alone is not enough in another folder
    assert paths.find("x/other/two.png") == tmp_path / "other" / "two.png"
    with pytest.raises(ValueError, match="is missing"):
        paths.find("train/three.png")  # an image of another part
    for name in ("../../outside.png", f"{tmp_path.parent}/outside.png", "/etc/hosts"):
        with pytest.raises(ValueError, match="leads out of the folder of the images"):
            paths.find(name)
    for name in (None, 3, "", " ", ".", "..", "a\0b", "x" * 300, "a/" * 500 + "b", "//", "C:"):
        with pytest.raises(ValueError, match="expected the name of an image file"):
            paths.find(name)
    assert paths.num_missing == 17
    with pytest.raises(FileNotFoundError, match=r"(?s)none of the 17 images of x\.json .*one.*\n.*two.*\n.*three"):
        paths.refuse_none(0, Path("x.json"))
    paths.refuse_none(1, Path("x.json"))


BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]}


@pytest.mark.parametrize("name", ["..\\images\\a.png", "C:\\x\\images\\a.png", "/home/ann/a.png", "http://h/i/a.png?x"])
def test_coco(tmp_path: Path, name: str) -> None:
    path = image(tmp_path / "images" / "a.png")
    document = {"images": [{"id": 1, "file_name": name}], "annotations": [BOX], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "train.json").write_text(json.dumps(document))
    dataset = open_detection_dataset(tmp_path, "train", broken="raise")
    assert dataset.file(0) == path and len(dataset[0].target) == 1


@pytest.mark.parametrize("folder", ["pictures/all", "data"])
def test_coco_with_images_in_a_folder_of_another_name(tmp_path: Path, folder: str) -> None:
    path = image(tmp_path / folder / "a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [BOX],
        "categories": [{"id": 1, "name": "x"}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "train.json").write_text(json.dumps(document))
    assert open_detection_dataset(tmp_path, "train", broken="raise").file(0) == path


@pytest.mark.parametrize(
    "line", ["data/fruit/images/a.png", "/home/ann/images/a.png", "D:\\fruit\\images\\a.png", "./images/a.png"]
)
def test_yolo_lists(tmp_path: Path, line: str) -> None:
    path = image(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "train.txt").write_text(f"{line}\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [apple]\n")
    dataset = open_detection_dataset(tmp_path, "train", broken="raise")
    assert dataset.file(0) == path and len(dataset[0].target) == 1
    (tmp_path / "train.txt").write_text("C:\\x\\gone.png\nC:\\x\\lost.png\n")
    with pytest.raises(FileNotFoundError, match=r"(?s)none of the 2 images of .*train\.txt .*gone\.png.*lost\.png"):
        open_detection_dataset(tmp_path, "train")


@pytest.mark.parametrize(
    "text",
    [
        "path: /home/ann/fruit\ntrain: images/train",
        "path: C:\\ann\\fruit\ntrain: images\\train",
        "train: /home/ann/fruit/images/train",
        "train: C:\\ann\\fruit\\images\\train",
        "train: ../fruit/images/train",
        "train: [/home/ann/fruit/images/train]",
        "path: fruit\ntrain: images/train",
    ],
)
def test_data_yaml(tmp_path: Path, text: str) -> None:
    path = image(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text(f"{text}\nnames: [apple]\n")
    assert open_detection_dataset(tmp_path, "train", broken="raise").file(0) == path


@pytest.mark.parametrize(
    "text",
    [
        "path: D:\\fruit\ntrain: D:\\fruit\\train.txt",
        "train: D:\\fruit\\train.txt",
        "path: /home/ann/fruit\ntrain: /home/ann/fruit/photos",
        "path: D:\\fruit\ntrain: D:\\fruit\\photos",
    ],
)
def test_data_yaml_that_repeats_its_path(tmp_path: Path, text: str) -> None:
    path = image(tmp_path / "photos" / "a.png")
    path.with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "train.txt").write_text("photos/a.png\n")
    (tmp_path / "data.yaml").write_text(f"{text}\nnames: [apple]\n")
    dataset = open_detection_dataset(tmp_path, "train", broken="raise")
    assert [dataset.file(0), *dataset.annotation(0).labels] == [path, 0]


@pytest.mark.parametrize("entry", ["/home/ann/fruit/pictures", "C:\\ann\\photos", "images/gone", "3"])
def test_data_yaml_that_leads_nowhere(tmp_path: Path, entry: str) -> None:
    image(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "data.yaml").write_text(f"path: /home/ann\ntrain: {entry}\nnames: [apple]\n")
    with pytest.raises(
        FileNotFoundError, match=r"data\.yaml: .* leads nowhere; looked for .*Write paths that count from"
    ):
        open_detection_dataset(tmp_path, "train")


XML = """<annotation><filename>{}</filename><path>{}</path><object><name>dog</name>
<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>31</xmax><ymax>31</ymax></bndbox></object></annotation>"""


def test_xml_files_of_other_names_than_their_images(tmp_path: Path) -> None:
    path = image(tmp_path / "train" / "photo 1.png")
    xml = tmp_path / "train" / "1.xml"
    for names in (("photo 1.png", ""), ("gone.png", "C:\\ann\\photo 1.png"), ("C:\\x\\photo 1.png", "/y/z.png")):
        xml.write_text(XML.format(*names))
        assert open_detection_dataset(tmp_path, "train", broken="raise").file(0) == path
    xml.write_text(XML.format("C:\\x\\gone.png", ""))
    with pytest.raises(FileNotFoundError, match=r"none of the 1 images of .*train is where it was looked for"):
        open_detection_dataset(tmp_path, "train")


@pytest.mark.parametrize(
    "line", ["1", "1.png", "1.jpg 1", "JPEGImages/1.png", "C:\\x\\1.png", "../JPEGImages/1", "1.xml"]
)
def test_voc_lists(tmp_path: Path, line: str) -> None:
    path = image(tmp_path / "JPEGImages" / "1.png")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "1.xml").write_text(XML.format("1.png", ""))
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text(f"{line}\n")
    assert open_detection_dataset(tmp_path, "train", broken="raise").file(0) == path


def test_open_images(tmp_path: Path) -> None:
    path = image(tmp_path / "train" / "deep" / "1.png")
    other = image(tmp_path / "train" / "2.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "class-descriptions-boxable.csv").write_text("/m/1,Apple\n/m/2,Pear\n")
    rows = "".join(f"{name},/m/1,0.1,0.5,0.1,0.5,{group}\n" for name, group in (("C:\\x\\1.png", "1.0"), ("2", "-1")))
    table = tmp_path / "annotations" / "oidv6-train-annotations-bbox.csv"
    table.write_text(f"ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n{rows}")
    dataset = open_detection_dataset(tmp_path, "train", broken="raise")
    assert [dataset.file(i) for i in range(2)] == [path, other]
    assert [dataset.annotation(i).is_special.tolist() for i in range(2)] == [[True], [False]]


@pytest.mark.parametrize(
    "line", ["1", "1.jpg", "JPEGImages/1.jpg SegmentationClassContext/1.png", "C:\\x\\1.jpg", "../1"]
)
def test_lists_of_segmentation(tmp_path: Path, line: str) -> None:
    path = image(tmp_path / "JPEGImages" / "1.jpg")
    mask = tmp_path / "SegmentationClassContext" / "1.png"
    mask.parent.mkdir()
    PIL.Image.fromarray(np.ones((60, 80), dtype=np.uint8)).save(mask)
    listing = tmp_path / "ImageSets" / "SegmentationContext" / "train.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text(f"{line}\n")
    [pair] = open_segmentation_dataset(tmp_path, split="train").files
    assert (pair.image, pair.mask) == (path, mask)
