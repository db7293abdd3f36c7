from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from internimage.data.objects.dataset import DetectionDataset
from internimage.data.readers.coco import open_coco
from internimage.data.readers.open_objects import open_detection_dataset

TOP_HALF = [0] + [30] * (2 * 80 - 1) + [30]  # 80 columns of 60 rows
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
DOCUMENT: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 80, "height": 60},
        {"id": 9, "file_name": "b.png", "width": 40, "height": 50},
        {"id": 3, "file_name": "empty.png", "width": 80, "height": 60},
    ],
    "categories": [{"id": 5, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {
            **{"id": 1, "image_id": 9, "category_id": 2, "bbox": [1.5, 2, 10, 20], "area": 20, "iscrowd": 0},
            "segmentation": {"size": [50, 40], "counts": [60, 20, 1920]},
        },
        {
            **{"id": 2, "image_id": 7, "category_id": 5, "bbox": [10, 10, 40, 40], "area": 450, "iscrowd": 0},
            "segmentation": [SQUARE, [40, 40, 50, 40, 50, 50, 40, 50]],
        },
        {
            **{"id": 3, "image_id": 7, "category_id": 2, "bbox": [0, 0, 80, 30], "area": 2400, "iscrowd": 1},
            "segmentation": {"size": [60, 80], "counts": TOP_HALF},
        },
        {
            **{"id": 4, "image_id": 7, "category_id": 2, "bbox": [5, 5, 0.5, 30], "area": 15, "iscrowd": 0},
            "segmentation": [SQUARE],
        },
    ],
}


def write(root: Path, document: Any) -> Path:
    (root / "annotations").mkdir(exist_ok=True)
    file = root / "annotations" / "instances_train2017.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "train2017").mkdir()
    for name, size in (("a", (80, 60)), ("b", (40, 50)), ("empty", (80, 60))):
        PIL.Image.new("RGB", size, (90, 30, 10)).save(tmp_path / "train2017" / f"{name}.png")
    write(tmp_path, DOCUMENT)
    return tmp_path


def opened(root: Path, **options: Any) -> DetectionDataset:
    return open_coco(root / "annotations/instances_train2017.json", root / "train2017", **options)


def test_targets(root: Path) -> None:
    dataset = opened(root, broken="raise")
    assert dataset.class_names == ("cat", "dog") and dataset.category_ids == (5, 2)
    assert len(dataset) == 3 and dataset.has_masks and dataset.problems == ()
    sample = dataset[0]
    target = sample.target
    assert sample.name.endswith("a.png") and sample.image.size == (80, 60)
    assert target.boxes_xyxy.tolist() == [[10, 10, 50, 50]], "neither the crowd nor what is thinner than a pixel"
    assert target.labels.tolist() == [0] and target.ignored_boxes_xyxy.tolist() == [[0, 0, 80, 30]]
    assert target.masks is not None
    expected = torch.zeros(60, 80, dtype=torch.bool)
    expected[10:30, 10:30] = expected[40:50, 40:50] = True
    assert (target.masks.to_bool()[0] == expected).all()
    other = dataset[1].target
    assert other.boxes_xyxy.tolist() == [[1.5, 2, 11.5, 22]] and other.labels.tolist() == [1]
    assert other.masks is not None and other.masks.to_bool()[0, 10:30, 1].all() and int(other.masks.areas[0]) == 20
    assert len(dataset[2].target) == 0 and dataset[2].target.boxes_xyxy.shape == (0, 4)


def test_what_metrics_see(root: Path) -> None:
    annotation = opened(root).annotation(0)
    assert annotation.image_id == 7 and annotation.size_hw == (60, 80)
    assert annotation.labels.tolist() == [0, 1, 1] and annotation.is_special.tolist() == [False, True, False]
    assert annotation.areas.tolist() == [450, 2400, 15] and annotation.boxes_xyxy.dtype == np.float64
    assert annotation.segmentations is not None
    assert annotation.segmentations[0] == DOCUMENT["annotations"][1]["segmentation"]
    assert annotation.segmentations[1] == {"size": [60, 80], "counts": TOP_HALF}


def test_document_round_trip(root: Path) -> None:
    document = opened(root).to_coco()
    file = write(root, document)
    again = open_coco(file, root / "train2017", broken="raise")
    assert again.to_coco() == document
    assert sorted(entry["area"] for entry in document["annotations"]) == [15, 20, 450, 2400]


def test_training_leaves_out_empty_and_tiny_images(root: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["images"].append({"id": 30, "file_name": "tiny.png", "width": 31, "height": 60})
    document["annotations"].append({"id": 8, "image_id": 30, "category_id": 2, "bbox": [1, 1, 5, 5]})
    PIL.Image.new("RGB", (31, 60)).save(root / "train2017/tiny.png")
    write(root, document)
    dataset = open_detection_dataset(root, "train")
    assert [dataset.annotation(i).image_id for i in range(len(dataset))] == [7, 9]
    assert len(open_detection_dataset(root, "train", filter_empty=False)) == 4
    with pytest.raises(ValueError, match="no image with an annotated object"):
        dataset.select([]).for_training()


def test_compressed_run_lengths_and_lvis_lists(root: Path) -> None:
    plain = opened(root)[0].target.masks
    assert plain is not None
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][1]["segmentation"] = plain.to_coco()[0]
    for i, category in enumerate(document["categories"]):
        category["frequency"] = "rf"[i]
    for image in document["images"]:
        image["coco_url"] = f"http://images.example/train2017/{image.pop('file_name')}"
    document["images"][0] |= {"neg_category_ids": [2, 99], "not_exhaustive_category_ids": [5]}
    (root / "annotations/instances_train2017.json").unlink()
    (root / "annotations/lvis_v1_train.json").write_text(json.dumps(document))
    dataset = open_detection_dataset(root, "train", broken="raise")
    masks = dataset[0].target.masks
    assert masks is not None and (masks.to_bool() == plain.to_bool()).all()
    assert dataset.frequencies == ("r", "f")
    annotation = dataset.annotation(0)
    assert annotation.negative_labels == {1} and annotation.incomplete_labels == {0}


# What is broken in the first annotation, the reason, and what is left of the object: nothing, its box or its mask.
BROKEN = {
    "size": ({"bbox": [1, 1, -5, 4]}, r"width -5 and height 4 must be positive", "mask"),
    "outside": ({"bbox": [90, 1, 5, 4]}, "lies outside of the image", "mask"),
    "not finite": ({"bbox": [1, 1, float("nan"), 4]}, "not finite", "mask"),
    "text": ({"bbox": [1, 1, "wide", 4]}, "bad box", "mask"),
    "huge": ({"bbox": [10**400, 1, 5, 4]}, "bad box", "mask"),
    "neither": ({"bbox": None, "segmentation": None}, r"expected \[left, top, width, height\]", ""),
    "class": ({"category_id": 77}, "no category has the id 77", ""),
    "class type": ({"category_id": [1]}, "unknown class", ""),
    "picture": ({"image_id": 1000}, "no image has the id 1000", ""),
    "short polygon": ({"segmentation": [[1, 2, 3, 4]]}, "at least 3 pairs", "box"),
    "odd polygon": ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "at least 3 pairs", "box"),
    "far polygon": ({"segmentation": [[1, 2, 3, 4, 5, 1e9]]}, "far out of the image", "box"),
    "endless polygon": ({"segmentation": [[0, 0, 80, 60] * 60_000]}, "more than can be drawn", "box"),
    "word polygon": ({"segmentation": ["abc"]}, "bad polygon", "box"),
    "word mask": ({"segmentation": "abc"}, "bad mask", "box"),
    "short runs": ({"segmentation": {"size": [60, 80], "counts": [5, 6]}}, "add up to 11", "box"),
    "negative runs": ({"segmentation": {"size": [60, 80], "counts": [-1, 4801]}}, "run lengths", "box"),
    "huge runs": ({"segmentation": {"size": [60, 80], "counts": [10**4000, 4801]}}, "run lengths", "box"),
    "size of runs": ({"segmentation": {"size": [6, 8], "counts": [48]}}, "not that of the image", "box"),
    "letters": ({"segmentation": {"size": [60, 80], "counts": "zz zz"}}, "bad run lengths: the letter 'z'", "box"),
    "endless letters": ({"segmentation": {"size": [60, 80], "counts": "P" * 25}}, "bad run lengths", "box"),
    "other runs": ({"segmentation": {"size": [60, 80], "counts": "11"}}, "they add up to 2", "box"),
    "open end": ({"segmentation": {"size": [60, 80], "counts": "P"}}, "ends within a number", "box"),
    "no letters": ({"segmentation": {"size": [60, 80], "counts": ""}}, "ends within a number", "box"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_part_costs_only_itself(root: Path, case: str) -> None:
    change, message, rest = BROKEN[case]
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][1] |= change
    write(root, document)
    with pytest.raises(ValueError, match=message) as caught:
        opened(root, broken="raise")
    assert "instances_train2017.json, annotations[1] (id 2): " in str(caught.value)
    dataset = opened(root)
    assert len(dataset.problems) == 1 and len(dataset.annotation(0).labels) == 2 + bool(rest)
    target, annotation = dataset[0].target, dataset.annotation(0)
    assert dataset.has_masks and target.masks is not None, "other masks are used, whatever became of this one"
    if rest == "mask":
        assert target.boxes_xyxy.tolist() == [[10, 10, 50, 50]], "the box of its mask"
    elif rest == "box":
        assert len(target) == 0 and target.ignored_boxes_xyxy.tolist() == [[10, 10, 50, 50], [0, 0, 80, 30]]
        assert annotation.lost_masks is not None and annotation.lost_masks.tolist() == [True, False, False]
        boxes_only = dataset.without_masks()
        assert boxes_only[0].target.boxes_xyxy.tolist() == [[10, 10, 50, 50]] and not boxes_only.has_masks
        assert boxes_only[0].target.masks is None and boxes_only.annotation(0).segmentations is None
        assert annotation.is_special.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["images"][2].update(file_name="gone.png"), r"images\[2\]: the image .*gone.png is missing"),
        (lambda d: d["images"][2].update(file_name="../annotations/x.png"), r"images\[2\]: .*leads out of the folder"),
        (lambda d: d["images"][2].update(file_name="/etc/hosts"), "leads out of the folder"),
        (lambda d: d["images"][2].update(id=7), r"images\[2\]: the id 7 is used twice"),
        (lambda d: d["images"].append(3), r"images\[3\]: expected an object"),
        (lambda d: d["annotations"].append("x"), r"annotations\[4\]: expected an object"),
        (lambda d: d["categories"].append({"id": 5, "name": "again"}), r"categories\[2\]: the id 5 is used twice"),
        (lambda d: d["annotations"][1].pop("segmentation"), "1 objects have no mask"),
    ],
)
def test_broken_entries(root: Path, change: Any, message: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    write(root, document)
    with pytest.raises(ValueError, match=message):
        opened(root, broken="raise")
    assert len(opened(root).problems) == 1


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "no valid JSON"),
        ("[" * 100_000, "no valid JSON"),
        ("[]", "expected an object at the top, given list"),
        ({"images": []}, 'no list "annotations"'),
        ({**DOCUMENT, "categories": [{}]}, "no category with an id and a name"),
    ],
)
def test_no_coco_file(root: Path, document: Any, message: str) -> None:
    write(root, document)
    with pytest.raises(ValueError, match=message):
        opened(root)


def test_limits_and_wrong_folders(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="more than 100 bytes"):
        opened(root, max_bytes=100)
    with pytest.raises(FileNotFoundError, match=r"(?s)none of the 3 images.*annotations/a\.png.*b\.png.*empty\.png"):
        open_coco(root / "annotations/instances_train2017.json", root / "annotations")
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_coco(root / "nothing.json", root)
    (root / "train2017/b.png").unlink()
    dataset = opened(root)
    assert len(dataset) == 2 and "b.png is missing" in caplog.text and "1 broken annotations" in caplog.text


def test_an_image_of_another_size(root: Path) -> None:
    PIL.Image.new("RGB", (60, 80)).save(root / "train2017/a.png")
    with pytest.raises(ValueError, match=r"a\.png: the image is .*\(80, 60\), but annotated as \(60, 80\)"):
        opened(root)[0]


def test_expected_classes(root: Path) -> None:
    dataset = opened(root, class_names=("bird", "dog", "cat"))
    assert dataset.class_names == ("bird", "dog", "cat") and dataset.category_ids == (-1, 2, 5)
    assert dataset[0].target.labels.tolist() == [2] and dataset[1].target.labels.tolist() == [1]
    with pytest.raises(ValueError, match="the classes 'dog', which are not among"):
        opened(root, class_names=("cat",))


def test_expected_classes_in_another_spelling(root: Path) -> None:
    dataset = opened(root, class_names=("Dog", "CAT"))
    assert dataset.class_names == ("Dog", "CAT") and dataset[0].target.labels.tolist() == [1]


def test_two_categories_of_one_name_are_one_class(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same in the training part, which gives the names, and in the validation part, which takes them."""
    file = root / "annotations/instances_train2017.json"
    document = json.loads(file.read_text())
    twin = {**document["categories"][0], "id": 77}
    document["categories"].append(twin)
    document["annotations"][1]["category_id"] = 77
    first = opened(root)
    file.write_text(json.dumps(document))
    for names in (None, first.class_names):
        dataset = opened(root, class_names=names)
        assert dataset.class_names == first.class_names and dataset.category_ids == first.category_ids
        assert all((dataset.labels(i) == first.labels(i)).all() for i in range(len(first)))
        assert dataset.category_ids == (5, 2)
    assert f"several categories of one name, which are one class: {twin['name']!r}" in caplog.text


def test_roboflow_layout(root: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    for category in document["categories"]:
        category["supercategory"] = "pets"
    document["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})
    (root / "annotations/instances_train2017.json").unlink()
    (root / "train2017").rename(root / "valid")
    (root / "valid/_annotations.coco.json").write_text(json.dumps(document))
    dataset = open_detection_dataset(root, "val", broken="raise")
    assert dataset.class_names == ("cat", "dog") and len(dataset) == 3


def test_the_message_lists_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"(?s)no detection data set.*COCO.*YOLO.*VOC2007.*OpenImages"):
        open_detection_dataset(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        open_detection_dataset(tmp_path / "gone")
    with pytest.raises(ValueError, match="'train', 'val' or 'test'"):
        open_detection_dataset(tmp_path, "valid")  # type: ignore[arg-type]


JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**400,
    1e308,
    "",
    ".",
    "..",
    "a" * 5000,
    [],
    [[]],
    [None] * 6,
    {},
    {"size": []},
)


def broken_somewhere(value: Any, rng: np.random.Generator) -> Any:
    """Replace one random entry of a document."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return JUNK[int(rng.integers(len(JUNK)))]
    result = copy.copy(value)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[int(rng.integers(len(keys)))]
    result[key] = broken_somewhere(value[key], rng)
    return result


def test_random_damage_is_reported_and_never_crashes(root: Path) -> None:
    rng = np.random.default_rng(0)
    outcomes = {"opened": 0, "refused": 0}
    for _ in range(120):
        write(root, broken_somewhere(DOCUMENT, rng))
        try:
            dataset = opened(root)
            for i in range(len(dataset)):
                dataset.annotation(i)
                dataset[i]
            outcomes["opened"] += 1
        except (ValueError, FileNotFoundError):
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 8
