from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from internimage.data import ImageFolder, Selection, open_dataset
from internimage.data.examples import ExampleCount, count_images
from internimage.data.label_maps.census import count_pixels
from internimage.data.label_maps.open import open_segmentation_dataset
from internimage.data.objects.census import count_examples, count_targets
from internimage.data.readers.coco import open_coco
from internimage.data.readers.open_objects import open_detection_dataset
from internimage.training import train
from internimage.training.examples import check_examples, check_targets
from internimage.training.recipes import recipe
from internimage.training.setup import Setup

Document = dict[str, Any]


def image(path: Path, size: tuple[int, int] = (80, 60)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, (90, 30, 10)).save(path)
    return path


def write_objects(root: Path, edit: Callable[[Document], object] = lambda _: None) -> Path:
    """Write two images with two objects of two classes each; a third class has none."""
    for part in ("train", "val"):
        images = [{"id": i, "file_name": f"{i}.png", "width": 80, "height": 60} for i in range(2)]
        objects = [
            {"id": i, "image_id": i % 2, "category_id": i // 2, "bbox": [10, 10, 30, 20], "iscrowd": 0, "area": 600}
            for i in range(4)
        ]
        categories = [{"id": i, "name": name} for i, name in enumerate(("apple", "pear", "plum"))]
        document: Document = {"images": images, "annotations": objects, "categories": categories}
        edit(document)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{part}.json").write_text(json.dumps(document))
        for i in range(2):
            image(root / part / f"{i}.png")
    return root


def to_all(**change: Any) -> Callable[[Document], object]:
    return lambda document: [entry.update(change) for entry in document["annotations"]]


def test_objects_are_counted_by_class(tmp_path: Path) -> None:
    def edit(document: Document) -> None:
        document["annotations"][0]["iscrowd"] = "1"
        document["annotations"][3]["bbox"] = [10, 10, 0.5, 20]

    dataset = open_detection_dataset(write_objects(tmp_path, edit), "train")
    count = count_examples(dataset)
    assert count.counts == (1, 1, 0) and count.absent == ("plum",)
    assert list(count.others.values()) == [1, 1]
    assert count_examples(dataset.select([0, 0])).counts == (0, 1, 0), "an image that is drawn twice counts once"
    targets = count_targets(dataset)
    assert targets.counts == (1, 2, 0) and list(targets.others.values()) == [1]


NOTHING = {
    "all crowds": (
        to_all(iscrowd=1),
        r'4 objects that are crowds, ignored or difficult; some tools write "iscrowd": 1',
    ),
    "all crowds as text": (to_all(iscrowd="1"), "4 objects that are crowds"),
    "all ignored": (to_all(ignore=True), "4 objects that are crowds, ignored or difficult"),
    "shares": (to_all(bbox=[0.1, 0.1, 0.5, 0.4]), r"4 objects thinner than a pixel; boxes of this form are pixels"),
    "lines": (to_all(bbox=[10, 10, 0.5, 40]), "4 objects thinner than a pixel"),
    "broken boxes": (to_all(bbox=[10, 10, -4, 40]), r"4 broken annotations.*annotations\[0\].*width -4"),
    "texts": (to_all(bbox="left"), r"4 broken annotations.*expected \[left, top, width, height\]"),
    "ids of another set": (to_all(image_id=77), r"2 of 2 images have no annotated object.*no image has the id 77"),
    "classes of another set": (to_all(category_id="cat"), r"4 broken annotations .*no category has the id 'cat'"),
    "no objects": (lambda d: d.update(annotations=[]), "2 of 2 images have no annotated object of a known class$"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_a_detector_needs_objects(tmp_path: Path, case: str) -> None:
    edit, message = NOTHING[case]
    write_objects(tmp_path, edit)
    with pytest.raises(ValueError, match=rf"(?s)train\.json.*{message}"):
        train("mask_rcnn_internimage_pico_closet", data=tmp_path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists(), "before anything is written"


def test_objects_of_area_0_are_learned(tmp_path: Path) -> None:
    dataset = open_detection_dataset(write_objects(tmp_path, to_all(area=0)), "train")
    assert count_examples(dataset).counts == (2, 2, 0)
    assert dataset.annotation(0).areas.tolist() == [600, 600]


def test_small_images_are_named(tmp_path: Path) -> None:
    write_objects(tmp_path, lambda d: [entry.update(width=31) for entry in d["images"]])
    for i in range(2):
        image(tmp_path / "train" / f"{i}.png", (31, 60))
    with pytest.raises(ValueError, match="2 images are smaller than 32 pixels a side"):
        open_detection_dataset(tmp_path, "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.001 0.002", "2 objects thinner than a pixel"),  # divided by the size twice
        ("0 40 30 20 20", r"2 broken annotations.*coordinates must be fractions of the image, 0\.\.1"),
        ("7 0.5 0.5 0.1 0.1", r"2 broken annotations.*unknown class 7"),
        ("", "2 of 2 images have no annotated object"),
    ],
)
def test_yolo_files_without_examples(tmp_path: Path, line: str, message: str) -> None:
    for part in ("train", "val"):
        for i in range(2):
            path = image(tmp_path / "images" / part / f"{i}.png")
            label = tmp_path / "labels" / part / f"{path.stem}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(f"{line}\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [apple, pear]\n")
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        train("mask_rcnn_internimage_pico_closet", data=tmp_path, out=tmp_path / "run")


def test_xml_files_with_difficult_objects_only(tmp_path: Path) -> None:
    for part in ("train", "val"):
        image(tmp_path / part / "1.png")
        (tmp_path / part / "1.xml").write_text(
            "<annotation><object><name>dog</name><difficult>1</difficult><bndbox><xmin>11</xmin><ymin>11</ymin>"
            "<xmax>31</xmax><ymax>31</ymax></bndbox></object></annotation>"
        )
    with pytest.raises(ValueError, match=r'1 objects that are crowds, ignored or difficult; .*"difficult": 1'):
        train("mask_rcnn_internimage_pico_closet", data=tmp_path, out=tmp_path / "run")


def test_images_are_counted_by_class(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/1"):
        image(tmp_path / f"{name}.png")
    dataset = ImageFolder(tmp_path, ("a", "b", "c"))
    count = count_images(dataset)
    assert count is not None and count.counts == (2, 1, 0) and count.is_complete
    selected = count_images(Selection(dataset, [0, 1]))
    assert selected is not None and selected.counts == (2, 0, 0) and selected.present == ("a",)
    masks: Any = Selection(open_coco_like(tmp_path), [0])
    assert count_images(masks) is None


def open_coco_like(root: Path) -> Any:
    class Own:
        class_names = ("a",)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            raise AssertionError("nothing is read")

    return Own()


def test_a_classifier_needs_two_classes(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for i in range(20):
            image(tmp_path / part / "cat" / f"{i}.png")
    with pytest.raises(ValueError, match="only the class 'cat' occurs, so that there is nothing to tell it from"):
        train("internimage_pico_fashion", data=tmp_path, out=tmp_path / "run")
    assert open_dataset(tmp_path, "train").class_names == ("cat",), "opening is no training"


def write_masks(root: Path, values: list[int], names: list[str], *, number: int = 3) -> Path:
    (root / "classes.txt").write_text("\n".join(names))
    for part in ("train", "val"):
        for i in range(number):
            image(root / "images" / part / f"{i}.png", (8, 6))
            mask = np.resize(np.array(values, dtype=np.uint8), (6, 8))
            (root / "masks" / part).mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(mask).save(root / "masks" / part / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("values", "names", "message"),
    [
        ([0, 255], ["ground", "lesion"], r"only the class 'ground' occurs.*255 stands for .* marks the class 'lesion'"),
        (
            [0, 255],
            ["lesion"],
            r"only the class 'lesion' occurs.*255 stands for pixels without a label.*a second class",
        ),
        ([0], ["lesion"], "only the class 'lesion' occurs"),
        ([1], ["ground", "lesion"], "only the class 'lesion' occurs"),
        ([255], ["ground", "lesion"], "nothing can be learned, there are no labeled pixels: .* 144 pixels without a"),
    ],
)
def test_a_segmentor_needs_two_classes(tmp_path: Path, values: list[int], names: list[str], message: str) -> None:
    write_masks(tmp_path, values, names)
    with pytest.raises(ValueError, match=message):
        train("upernet_internimage_pico_closet", data=tmp_path, out=tmp_path / "run")


def test_pixels_are_counted_by_class(tmp_path: Path) -> None:
    dataset = open_segmentation_dataset(write_masks(tmp_path, [0, 0, 1, 255], ["a", "b", "c"]), split="train")
    count = count_pixels(dataset)
    assert count.counts == (72, 36, 0) and list(count.others.values()) == [36] and count.is_complete
    assert '"values": [0, 1, 255]' in count.advice and "the class 'c'" in count.advice
    (tmp_path / "masks" / "train" / "0.png").write_bytes(b"")
    partly = count_pixels(dataset)
    assert partly.counts == (48, 24, 0) and "masks that cannot be read (the first one: " in partly.reasons()
    for i in (1, 2):
        (tmp_path / "masks" / "train" / f"{i}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of 3 masks can be read; the first one: .*\.png: the file is empty"):
        count_pixels(dataset)


def test_a_few_masks_are_enough_where_all_classes_occur(tmp_path: Path) -> None:
    dataset = open_segmentation_dataset(write_masks(tmp_path, [0, 1], ["a", "b"], number=70), split="train")
    count = count_pixels(dataset)
    assert (count.looked_at, count.total, count.scope) == (64, 70, "64 of 70 images")
    assert count_pixels(Selection(dataset, range(70))) == count


def test_what_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_examples(ExampleCount("objects", ("a", "b"), (3, 9), looked_at=4, total=4), place="x")
    assert [record.message for record in caplog.records] == ["learns from 12 objects in 4 images: b 9, a 3"]
    caplog.clear()
    absent = ExampleCount("objects", ("a", "b"), (3, 0), {"crowds": 2}, 4, 9, "mend it")
    check_examples(absent, place="x")
    assert caplog.messages == [
        "x: no objects of 'b' in 4 of 9 images, so it cannot be learned; in 4 of 9 images there are 2 crowds; mend it"
    ]
    caplog.clear()
    check_examples(ExampleCount("labeled pixels", ("a", "b"), (3, 0), {}, 4, 9), place="x", fewest_classes=2)
    assert "no labeled pixels of 'b' in 4 of 9 images" in caplog.text, "some masks do not prove that there is none"
    many = ExampleCount("objects", tuple(map(str, range(40))), (1, *[0] * 39), {}, 4, 4)
    caplog.clear()
    check_examples(many, place="x")
    assert "'10' and 29 more classes" in caplog.text and "they cannot be learned" in caplog.text


def test_coco_shares_are_explained(tmp_path: Path) -> None:
    write_objects(tmp_path, to_all(bbox=[0.1, 0.1, 0.5, 0.4]))
    dataset = open_coco(tmp_path / "annotations" / "train.json", tmp_path / "train")
    assert "multiply them by width and height" in count_examples(dataset).reasons()


def test_a_validation_part_without_objects_measures_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_objects(tmp_path)
    document = json.loads((tmp_path / "annotations" / "val.json").read_text())
    (tmp_path / "annotations" / "val.json").write_text(json.dumps(document | {"annotations": []}))
    chosen: Any = recipe("mask_rcnn_internimage_pico_closet").with_overrides(
        ["model.backbone_weights=none", "data.batch_size=2", "model.learn_masks=false"]
    )
    task = Setup(chosen, tmp_path)
    assert "val.json: the validation part holds no objects, so nothing is measured" in caplog.text
    assert all(np.isnan(value) for value in task.validate(task.model).values())


def test_what_is_said_of_a_validation_part(caplog: pytest.LogCaptureFixture) -> None:
    assert check_targets(ExampleCount("objects", ("a", "b"), (0, 1)), place="x") and not caplog.records
    assert not check_targets(ExampleCount("objects", ("a",), (0,), {"crowds": 2}, 4, 4), place="x")
    assert caplog.messages[0].endswith("the last weights are the only ones; in 4 images there are 2 crowds")


def test_masks_of_0_and_255_with_the_values_of_their_classes(tmp_path: Path) -> None:
    write_masks(tmp_path, [0, 255], ["ground", "lesion"])
    (tmp_path / "classes.txt").unlink()
    file = tmp_path / "classes.json"
    file.write_text(json.dumps({"classes": ["ground", "lesion"], "values": [0, 255]}))
    dataset = open_segmentation_dataset(tmp_path, split="train")
    assert count_pixels(dataset).counts == (72, 72) and not count_pixels(dataset).advice
    assert np.unique(dataset[0].target).tolist() == [0, 1]
    for values, message in (
        ([0], "expected 2 different values, one for each class, given 1"),
        ([0, 0], "expected 2 different values"),
        ([0, 256], r"values must be a list of numbers 0\.\.255"),
        ("0", "values must be a list"),
    ):
        file.write_text(json.dumps({"classes": ["ground", "lesion"], "values": values}))
        with pytest.raises(ValueError, match=rf"classes\.json: {message}"):
            open_segmentation_dataset(tmp_path, split="train")
    file.write_text('{"classes": ["ground", "lesion"], "values": [0, %s]}' % ("9" * 5001))
    with pytest.raises(ValueError, match=r"classes\.json: this is no JSON \(Exceeds the limit"):
        open_segmentation_dataset(tmp_path, split="train")
    both = {"classes": ["a", "b"], "values": [0, 1], "palette": [[0, 0, 0], [1, 1, 1]]}
    file.write_text(json.dumps(both))
    with pytest.raises(ValueError, match="leave one out"):
        open_segmentation_dataset(tmp_path, split="train")
