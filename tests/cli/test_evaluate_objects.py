"""`internimage evaluate` with detectors and segmentors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import Result

import internimage
from internimage.detection.evaluate import evaluate_detection
from internimage.segmentation import SegFormerConfig, SegmentationPreprocess

pytest.importorskip("faster_coco_eval")
Run = Callable[..., Result]


@pytest.fixture
def zoo_images(tmp_path: Path) -> Path:
    """Three images with an owl and a cat each, with masks."""
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    (root / "val").mkdir()
    rng = np.random.default_rng(0)
    names = ("cat", "dog", "owl")
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in range(3)],
        "annotations": [
            {
                "id": 2 * i + j + 1,
                "image_id": i,
                "category_id": 10 + label,
                "bbox": [5 + 25 * j, 8, 20, 24],
                "area": 480,
                "iscrowd": 0,
                "segmentation": [[5 + 25 * j, 8, 25 + 25 * j, 8, 25 + 25 * j, 32, 5 + 25 * j, 32]],
            }
            for i in range(3)
            for j, label in enumerate((2, 0))
        ],
        "categories": [{"id": 10 + i, "name": name} for i, name in enumerate(names)],
    }
    for i in range(3):
        PIL.Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(root / "val" / f"{i}.png")
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def test_the_part_is_chosen(run: Run, animals: Path, zoo_images: Path) -> None:
    (zoo_images / "val").rename(zoo_images / "Test")
    (zoo_images / "annotations" / "instances_val.json").rename(zoo_images / "annotations" / "instances_Test.json")
    named = run("evaluate", animals, zoo_images, "--split", "test", "--json")
    assert json.loads(named.stdout)["images"] == 3 and "part" not in named.stderr
    result = run("evaluate", animals, zoo_images, "--json")
    assert json.loads(result.stdout)["figures"] == json.loads(named.stdout)["figures"]
    assert "no validation part" in " ".join(result.stderr.split())


def test_a_detector(run: Run, animals: Path, zoo_images: Path, tmp_path: Path) -> None:
    arguments = ("evaluate", animals, zoo_images, "--out", tmp_path / "out")
    report = json.loads(run(*arguments, "--json").stdout)
    assert report["images"] == 3 and report["metric"] == "coco" and "mask_AP" in report["figures"]
    expected = evaluate_detection(internimage.load(animals), zoo_images)  # type: ignore[arg-type]
    assert report["figures"] == pytest.approx(expected.metrics.values)
    assert (tmp_path / "out" / "results.json").exists()
    shown = run(*arguments)
    assert "box_AP50" in shown.stdout and "owl" in shown.stdout and "kept in" in shown.stderr


def test_what_is_quoted_comes_first_then_the_classes_then_the_rest(run: Run, animals: Path, zoo_images: Path) -> None:
    lines = [line.split() for line in run("evaluate", animals, zoo_images).stdout.splitlines() if line.split()]
    first_words = [line[0] for line in lines]
    headings = [index for index, word in enumerate(first_words) if word == "metric"]
    assert len(headings) == 2
    quoted, others = first_words[headings[0] + 1 : first_words.index("class")], first_words[headings[1] + 1 :]
    assert quoted == ["box_AP", "box_AP50", "mask_AP", "mask_AP50"]
    assert len(others) >= 30 and not set(quoted) & set(others) and {"box_AP75", "mask_AP_small"} <= set(others)
    assert {"owl", "cat"} <= set(first_words[first_words.index("class") : headings[1]])


def test_an_annotations_file_and_other_metrics(run: Run, animals: Path, zoo_images: Path) -> None:
    file = zoo_images / "annotations" / "instances_val.json"
    options = ("--pictures", zoo_images / "val", "--json", "--metric", "voc2012")
    report = json.loads(run("evaluate", animals, file, *options).stdout)
    assert set(report["figures"]) == {"mAP", "mAP_at_iou_0.75"} and report["images"] == 3
    several = run("evaluate", animals, file, *options, "--multi-scale", "--merge", "fusion")
    assert several.exit_code == 0 and json.loads(several.stdout)["images"] == 3


def test_a_segmentor(run: Run, tmp_path: Path) -> None:
    head = SegFormerConfig(channels=8)
    model = internimage.create(
        "segformer",
        backbone="internimage_pico",
        class_names=["sky", "road"],
        head=head,
        preprocess=SegmentationPreprocess(scale=(64, 48)),
    )
    scene = internimage.save_model(model, tmp_path / "scene.safetensors")
    data = tmp_path / "scenes"
    for part in ("images", "annotations"):
        (data / part / "val").mkdir(parents=True)
    (data / "classes.txt").write_text("sky\nroad\n", encoding="utf-8")
    for i in range(2):
        PIL.Image.new("RGB", (40, 32), (90, 30 * i, 7)).save(data / "images" / "val" / f"{i}.jpg")
        PIL.Image.new("L", (40, 32), i).save(data / "annotations" / "val" / f"{i}.png")
    report = json.loads(run("evaluate", scene, data, "--json").stdout)
    assert report["task"] == "segmentation" and report["images"] == 2 and 0 <= report["mIoU"] <= 1
    shown = run("evaluate", scene, data, "--out", tmp_path / "out", "--multi-scale")
    assert "mIoU" in shown.stdout and "road" in shown.stdout and (tmp_path / "out").exists()
    for i in range(2):
        PIL.Image.new("L", (40, 32), 255).save(data / "annotations" / "val" / f"{i}.png")
    nothing = run("evaluate", scene, data)
    assert nothing.exit_code == 1 and "the masks of 2 images hold no pixel with a label" in nothing.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"iscrowd": 1},
            "no objects to compare answers with in 3 images; in 3 images there are 6 objects that are crowds",
        ),
        ({"iscrowd": "1"}, 'some tools write "iscrowd": 1'),
        ({"image_id": "x"}, "6 broken annotations, which are left out (the first one: "),
        ({"bbox": [1, 1, -1, 3], "segmentation": None}, "width -1 and height 3 must be positive"),
    ],
)
def test_nothing_to_measure(run: Run, animals: Path, zoo_images: Path, change: dict[str, object], message: str) -> None:
    file = zoo_images / "annotations" / "instances_val.json"
    document = json.loads(file.read_text())
    for entry in document["annotations"]:
        entry |= change
    file.write_text(json.dumps(document))
    result = run("evaluate", animals, zoo_images)
    assert result.exit_code == 1 and not result.stdout
    text = " ".join(result.stderr.split())
    assert "there is nothing to measure" in text and message in text


def test_images_that_cannot_be_read_are_nothing_to_measure(run: Run, animals: Path, zoo_images: Path) -> None:
    for i in range(3):
        (zoo_images / "val" / f"{i}.png").write_bytes(b"no image")
    result = run("evaluate", animals, zoo_images)
    assert result.exit_code == 1 and not result.stdout
    assert "none of 3 images could be read; the first one: " in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["{animals}", "{data}", "--confusion", "x.png"], 2, "--confusion is for classification"),
        (["{pets}", "{data}", "--metric", "coco"], 2, "--metric is for detection"),
        (["{animals}", "{data}", "--merge", "nms"], 2, "--merge needs --multi-scale"),
        (["{animals}", "{data}", "--metric", "map"], 2, "map"),
        (["{animals}", "{data}", "--metric", "lvis"], 1, "frequency"),
        (["{animals}", "{data}/val"], 1, "no detection data set"),
    ],
)
def test_wrong_requests(
    run: Run, animals: Path, pets: Path, zoo_images: Path, arguments: list[str], exit_code: int, message: str
) -> None:
    texts = [text.format(animals=animals, pets=pets, data=zoo_images) for text in arguments]
    result = run("evaluate", *texts)
    assert result.exit_code == exit_code
    assert message in " ".join(result.stderr.split())
