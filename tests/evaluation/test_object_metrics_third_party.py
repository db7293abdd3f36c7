"""Metrics against code that was not written here, on random data sets.

`recorded/lvis_random.json.gz` holds sets of `random_sets.py` with the figures of the package lvis 0.5.3, whose needs
(numpy below 1.24, OpenCV with windows) no test environment should have.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from internimage.data.readers.coco import open_coco
from internimage.evaluation.coco import coco_curves, coco_metrics, lvis_curves, lvis_metrics
from internimage.evaluation.crowd_human import MISS_LEVELS, crowd_metrics
from internimage.evaluation.object_classes import ObjectClasses
from internimage.evaluation.object_metrics import measure
from internimage.evaluation.predictions import FoundObjects, found_objects

from .conftest import from_coco, true_image
from .random_sets import random_set
from .test_object_metrics import ONE_CLASS, STANDARD


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("kind", "name"), [("box", "bbox"), ("mask", "segm")])
def test_coco_metrics_are_those_of_pycocotools(kind: Any, name: str, seed: int) -> None:
    gt, answers = random_set(seed)
    figures = coco_metrics(coco_curves(*from_coco(gt, answers), kind=kind), kind)
    assert [figures[f"{kind}_{key}"] for key in STANDARD] == pycocotools_stats(gt, answers, name)


def pycocotools_stats(gt: dict[str, Any], answers: list[dict[str, Any]], name: str) -> list[Any]:
    """Return the twelve figures, None where there is nothing to be found."""
    with contextlib.redirect_stdout(io.StringIO()):
        targets = COCO()
        targets.dataset = copy.deepcopy(gt)  # it writes into what it is given
        targets.createIndex()
        other = "segmentation" if name == "bbox" else "bbox"  # loadRes measures by the box where there is one
        own = [{key: value for key, value in answer.items() if key != other} for answer in answers]
        evaluation = COCOeval(targets, targets.loadRes(own) if own else COCO(), name)
        if not own:
            evaluation.cocoDt.dataset = {**gt, "annotations": []}
            evaluation.cocoDt.createIndex()
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value == -1 else pytest.approx(value, abs=1e-12) for value in evaluation.stats.tolist()]


def lvis_sets() -> list[dict[str, Any]]:
    with gzip.open(Path(__file__).with_name("recorded") / "lvis_random.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)["sets"]


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_lvis_metrics_are_those_of_lvis(kind: Any) -> None:
    sets = lvis_sets()
    assert len(sets) > 50
    for number, stored in enumerate(sets):
        targets, found, classes = from_coco(stored["gt"], stored["answers"])
        ours = list(
            lvis_metrics(lvis_curves(targets, found, classes, kind=kind), kind, classes.frequencies or ()).values()
        )
        for value, expected in zip(ours, stored["figures"][kind].values(), strict=True):
            assert value == (None if expected is None else pytest.approx(expected, abs=1e-12)), number


def test_an_image_of_unchecked_classes_only_ends_no_lvis_evaluation() -> None:
    [stored] = [lvis_sets()[0]]
    mask = stored["answers"][0]["segmentation"]
    full = true_image(1, (40, 60), [[2, 2, 9, 9]], [0], segmentations=[mask])
    blank = true_image(2, (40, 60), [], [], segmentations=[])
    found = found_objects([[2, 2, 9, 9]], [0.9], [0], [mask])
    for kind in ("box", "mask"):
        figures = measure("lvis", [full, blank], [found, found], ONE_CLASS, kinds=(kind,))
        assert figures.values[f"{kind}_AP"] == pytest.approx(1.0)


def plain_miss_rate(is_right: np.ndarray, people: int, images: int) -> float:
    """Read the log-average miss rate step by step; behind the last answer, its miss rate goes on."""
    rates, wrong = [], np.cumsum(~is_right) / images
    missed = 1 - np.cumsum(is_right) / people
    for place in MISS_LEVELS[2]:
        reached = np.flatnonzero(wrong >= place)
        rates.append(missed[reached[0]] if len(reached) else missed[-1])
    return float(np.exp(np.mean(np.log(rates))))


@pytest.mark.parametrize("num_wrong", [0, 1, 3, 40])
def test_miss_rate_where_places_are_never_reached(num_wrong: int) -> None:
    draw = np.random.default_rng(num_wrong)
    people = np.array([[20.0 * k, 0, 20 * k + 15, 50] for k in range(4)])
    targets = [true_image(i, (100, 400), people, [0] * 4) for i in range(4)]
    boxes = [
        np.concatenate([people[:3], np.tile([300.0, 60, 330, 99], (num_wrong if i == 0 else 0, 1))]) for i in range(4)
    ]
    found = [found_objects(own, draw.random(len(own)), [0] * len(own)) for own in boxes]
    scores = np.concatenate([own.scores for own in found])
    is_right = np.concatenate([np.arange(len(own)) < 3 for own in found])[np.argsort(-scores, kind="stable")]
    assert crowd_metrics(targets, found).miss_rate == pytest.approx(plain_miss_rate(is_right, 16, 4), abs=1e-12)


def test_miss_rate_and_jaccard_at_the_ends() -> None:
    person = true_image(1, (100, 100), [[10, 10, 40, 90]], [0])
    crowd = true_image(2, (100, 100), [[0, 0, 100, 100]], [0], is_special=[1])
    right, nothing = found_objects([[10, 10, 40, 90]], [0.9], [0]), found_objects([], [], [])

    def jaccard(*found: FoundObjects) -> float | None:
        return crowd_metrics([person, crowd], list(found)).jaccard

    assert jaccard(right, nothing) == pytest.approx(
        1.0, abs=1e-5
    )  # the mean over the one image in which something counts
    assert jaccard(right, right) == pytest.approx(1.0, abs=1e-5)  # an answer in an ignored region does not count
    assert jaccard(nothing, nothing) == 0.0
    assert crowd_metrics([crowd], [nothing]) == type(crowd_metrics([], []))(None, None, None)
    assert crowd_metrics([person], [nothing]).miss_rate == 1.0
    assert crowd_metrics([person], [right]).miss_rate == pytest.approx(0.0, abs=1e-12)


def test_the_key_ignore_of_coco_files_is_for_training_and_other_metrics(tmp_path: Path) -> None:
    gt, answers = random_set(4)
    assert len(gt["annotations"]) > 3
    for i, entry in enumerate(gt["annotations"]):
        entry |= {"ignore": i % 2, "iscrowd": int(i == 3)}
    for image in gt["images"]:
        PIL.Image.new("RGB", (60, 40)).save(tmp_path / image["file_name"])
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    data = open_coco(tmp_path / "gt.json", tmp_path)
    targets = [data.annotation(i) for i in range(len(data))]
    found = from_coco(gt, answers)[1]
    figures = coco_metrics(coco_curves(targets, found, ObjectClasses.of(data)), "box")
    assert [figures[f"box_{key}"] for key in STANDARD] == pycocotools_stats(gt, answers, "bbox")
    examples = sum(len(data[i].target.labels) for i in range(len(data)))
    assert examples == sum(not entry["ignore"] and not entry["iscrowd"] for entry in gt["annotations"])
    again = data.to_coco()["annotations"]
    assert [(entry["iscrowd"], entry.get("ignore", 0)) for entry in again] == [
        (entry["iscrowd"], entry["ignore"] and not entry["iscrowd"]) for entry in gt["annotations"]
    ]
