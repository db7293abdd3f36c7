"""Every metric against the numbers that the original code, or the tools of the data sets, gave."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from internimage.data.objects.annotation import ImageAnnotation
from internimage.errors import MissingExtra
from internimage.evaluation.coco import coco_curves, coco_metrics, lvis_curves, lvis_metrics
from internimage.evaluation.crowd_human import crowd_metrics
from internimage.evaluation.object_classes import ObjectClasses
from internimage.evaluation.object_metrics import METRICS, measure
from internimage.evaluation.open_images import open_images_precision
from internimage.evaluation.predictions import FoundObjects, found_objects
from internimage.evaluation.voc import mean_precision, voc_precision

from .conftest import by_class, corners, from_coco, true_image

pytest.importorskip("faster_coco_eval")
SIZES = ("small", "medium", "large")
STANDARD = ["AP", "AP50", "AP75", *(f"AP_{x}" for x in SIZES), "AR_1", "AR_10", "AR_100", *(f"AR_{x}" for x in SIZES)]
AT_1000 = [
    *("AP", "AP50_at_1000", "AP75_at_1000", *(f"AP_{x}_at_1000" for x in SIZES)),
    *("AR_100", "AR_300", "AR_1000", *(f"AR_{x}_at_1000" for x in SIZES)),
]


@pytest.mark.parametrize(("kind", "name"), [("box", "bbox"), ("mask", "segm")])
def test_coco(metrics: dict[str, Any], kind: Any, name: str) -> None:
    recorded = metrics["coco"]["pycocotools"][name]
    targets, found, classes = from_coco(metrics["coco"]["gt"], metrics["coco"][name])
    curves = coco_curves(targets, found, classes, kind=kind)
    figures = coco_metrics(curves, kind)
    assert [figures[f"{kind}_{x}"] for x in STANDARD] == pytest.approx(recorded["stats"], abs=1e-12)
    assert [figures[f"{kind}_{x}"] for x in AT_1000] == pytest.approx(recorded["stats_maxdets_100_300_1000"], abs=1e-12)
    per_class = [curves.ap(limit=1000, classes=label) for label in range(5)]
    assert per_class == pytest.approx(recorded["per_class_ap_mmdet_classwise"], abs=1e-12)
    own = [curves.ap(limit=100, classes=i) for i in range(5)]
    assert own == pytest.approx(recorded["per_class_ap"], abs=1e-12)
    for ours, theirs in (("AP50_at_1000", "mAP_50"), ("AP_small_at_1000", "mAP_s"), ("AP", "mAP")):
        published = metrics["coco"]["mmdet_bbox_segm"][f"{name}_{theirs}"]
        assert figures[f"{kind}_{ours}"] == pytest.approx(published, abs=5e-4)


def test_coco_with_one_class_of_people(metrics: dict[str, Any]) -> None:
    recorded = metrics["crowdhuman_official"]["stats"]
    coco = metrics["coco"]
    people = {"categories": [{"id": 1, "name": "person"}], "images": coco["gt"]["images"]}
    people["annotations"] = [{**entry, "category_id": 1} for entry in coco["gt"]["annotations"]]
    targets, found, classes = from_coco(people, [{**entry, "category_id": 1} for entry in coco["bbox"]])
    figures = coco_metrics(coco_curves(targets, found, classes), "box")
    assert [figures[f"box_{x}"] for x in AT_1000[:6]] == pytest.approx(recorded[:6], abs=1e-12)


def test_lvis(metrics: dict[str, Any]) -> None:
    targets, found, classes = from_coco(metrics["lvis"]["gt"], metrics["lvis"]["bbox"])
    curves = lvis_curves(targets, found, classes)
    figures = list(lvis_metrics(curves, "box", classes.frequencies or ()).values())
    assert figures == pytest.approx(list(metrics["lvis"]["lvis"].values()), abs=1e-12)
    per_class = [curves.ap(limit=300, classes=label) for label in range(6)]
    assert per_class == pytest.approx(metrics["lvis"]["per_class_ap"], abs=1e-12)


def voc(metrics: dict[str, Any]) -> tuple[list[ImageAnnotation], list[FoundObjects]]:
    targets = [
        true_image(
            entry["name"],
            (entry["height"], entry["width"]),
            np.array(entry["xml_boxes"]).reshape(-1, 4) - 1.0,
            entry["labels"],
            is_special=entry["difficult"],
        )
        for entry in metrics["voc"]["gt"]
    ]
    return targets, [by_class(own) for own in metrics["voc"]["detections"]]


@pytest.mark.parametrize("year", [2007, 2012])
def test_voc(metrics: dict[str, Any], year: Any) -> None:
    recorded = metrics["voc"]["results"][str(year)]
    targets, found = voc(metrics)
    classes = voc_precision(targets, found, num_classes=20, year=year)
    assert mean_precision(classes) == pytest.approx(recorded["eval_map"], abs=1e-7)
    for ours, (num_true, num_found, value) in zip(classes, recorded["per_class"], strict=True):
        assert (ours.objects, ours.found) == (num_true, num_found)
        assert (ours.value or 0.0) == pytest.approx(value, abs=1e-7)
        assert (ours.value is None) == (num_true == 0)
    strict = mean_precision(voc_precision(targets, found, num_classes=20, year=year, iou=0.75))
    assert strict == pytest.approx(recorded["dataset_evaluate_50_75"]["AP75"], abs=5e-4)
    plain = mean_precision(voc_precision(targets, found, num_classes=20, year=year, extent=0.0))
    assert plain == pytest.approx(recorded["without_legacy_plus_one"], abs=1e-7)


CASES: dict[str, dict[str, Any]] = {
    "official": {},
    "no_image_level": {"has_levels": False},
    "no_group_of": {"has_groups": False},
    "no_supercategory": {"ancestors": None},
    "no_filter": {"only_checked_classes": False},
}


@pytest.mark.parametrize("case", CASES)
def test_open_images(metrics: dict[str, Any], case: str) -> None:
    stored = metrics["openimages"]
    numbers = {name: i for i, name in enumerate(stored["class_ids"])}
    header, *lines = stored["annotations_csv"]
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    settings = {"ancestors": np.array(stored["class_label_tree"], dtype=bool), **CASES[case]}
    levels = stored["image_level_csv"][1:] if settings.pop("has_levels", True) else []
    targets = []
    for image in stored["images"]:
        own = [row for row in rows if row["ImageID"] == image["image"]]
        shares = np.array([[row[side] for side in ("XMin", "YMin", "XMax", "YMax")] for row in own]).reshape(-1, 4)
        targets.append(
            true_image(
                image["image"],
                (image["height"], image["width"]),
                shares * np.tile([image["width"], image["height"]], 2),
                [numbers[row["LabelName"]] for row in own],
                is_special=[row["IsGroupOf"] for row in own],
                negative_labels=[numbers[line[2]] for line in levels if line[0] == image["image"]],
            )
        )
    found = [by_class(own) for own in stored["detections"]]
    classes = open_images_precision(targets, found, num_classes=7, **settings)
    recorded = stored["results"][case]
    assert mean_precision(classes) == pytest.approx(recorded["result"]["mAP"], abs=1e-7)
    for ours, (num_true, num_found, value) in zip(classes, recorded["per_class"], strict=True):
        assert (ours.objects, ours.found) == (num_true, num_found)
        assert (ours.value or 0.0) == pytest.approx(value, abs=1e-7)


def people(crowd: dict[str, Any]) -> tuple[list[ImageAnnotation], list[FoundObjects]]:
    targets = []
    for entry in crowd["gt_odgt"]:
        boxes = entry["gtboxes"]
        ignored = [box["tag"] != "person" or bool(box.get("extra", {}).get("ignore", 0)) for box in boxes]
        size_hw = (entry["height"], entry["width"])
        places = corners([box["fbox"] for box in boxes])
        targets.append(true_image(entry["ID"], size_hw, places, [0] * len(boxes), is_special=ignored))
    return targets, [by_class([own]) for own in crowd["detections_xyxy_score"]]


@pytest.mark.parametrize(("case", "decades"), [("default", 2), ("mr4", 4)])
def test_crowd_human(crowd: dict[str, Any], case: str, decades: int) -> None:
    recorded = crowd["results"][case]["unrounded"]
    figures = crowd_metrics(*people(crowd), decades=decades)
    assert figures.precision == pytest.approx(recorded["eval_ap"], abs=1e-12)
    assert figures.miss_rate == pytest.approx(recorded["eval_mr"], abs=1e-12)
    assert figures.jaccard == pytest.approx(recorded["eval_ji"], abs=1e-9)


ONE_CLASS = ObjectClasses(("person",), (1,), ("f",), np.ones((1, 1), dtype=bool))
DEGENERATE = [[5, 5, 5, 5], [-50, -50, 900, 900], [3, 9, 1, 2], [0, 0, 1e-9, 1e-9], [1e6, 1e6, 2e6, 2e6]]


@pytest.mark.parametrize("metric", METRICS)
def test_degenerate_boxes_and_empty_images(metric: Any) -> None:
    nothing = found_objects([], [], [])
    blank = true_image(1, (20, 30), [], [])
    odd = true_image(2, (20, 30), DEGENERATE, [0] * 5, is_special=[0, 1, 0, 0, 0])
    answers = found_objects(DEGENERATE, [0.9, 0.8, 0.7, 0.6, 0.5], [0] * 5)
    for targets, found in (
        ([], []),
        ([blank], [nothing]),
        ([blank, odd], [answers, nothing]),
        ([odd, blank], [answers, answers]),
        ([true_image(3, (20, 30), [[0, 0, 1, 1]], [0], is_special=[1])], [answers]),
    ):
        for value in measure(metric, targets, found, ONE_CLASS).values.values():
            assert value is None or 0.0 <= value <= 1.0 + 1e-9


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_answers(metric: Any) -> None:
    boxes = np.array([[2.0, 3, 12, 15], [14, 2, 28, 18]])
    targets = [true_image(i, (20, 30), boxes, [0, 0]) for i in range(3)]
    found = [found_objects(boxes, [0.9, 0.8], [0, 0]) for _ in range(3)]
    figures = measure(metric, targets, found, ONE_CLASS)
    main = next(iter(figures.values.values()))
    assert main == pytest.approx(1.0, abs=0.02 if metric != "crowdhuman" else 0.2)
    assert figures.per_class[0]["objects"] == 6


def test_requests_that_do_not_fit() -> None:
    targets, found = [true_image(1, (20, 30), [[0, 0, 5, 5]], [0])], [found_objects([[0, 0, 5, 5]], [0.5], [0])]
    with pytest.raises(ValueError, match="ground truth has no masks"):
        coco_curves(targets, found, ONE_CLASS, kind="mask")
    with pytest.raises(ValueError, match="frequency of each class"):
        measure("lvis", targets, found, ObjectClasses(("person",), (1,)))
    with pytest.raises(ValueError, match="one class"):
        measure("crowdhuman", targets, found, ObjectClasses(("a", "b"), (1, 2)))
    with pytest.raises(ValueError, match="metric must be one of"):
        measure("map", targets, found, ONE_CLASS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decades"):
        crowd_metrics(targets, found, decades=3)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingExtra, match=r"faster-coco-eval.*internimage\[train\]"):
        coco_curves([], [], ONE_CLASS)
