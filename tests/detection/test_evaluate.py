"""A whole evaluation: images from files, answers kept, cut and taken up again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from internimage.checkpoints.catalog import info
from internimage.data.labels import label_set
from internimage.detection.evaluate import evaluate_detection
from internimage.detection.report import DetectionReport, published_metrics
from internimage.detection.tta import DetectionTTA
from internimage.evaluation.classes import known_classes
from internimage.evaluation.object_classes import category_ids
from internimage.evaluation.record_log import model_fingerprint
from tests.full_disk import largest_file

from .recited import SIDE, Recited

pytest.importorskip("faster_coco_eval")
NAMES = ("cat", "dog")
TRUE_BOXES = [[2.0, 2, 8, 9], [9.0, 1, 15, 12]]
NUMBER = 6


def coco() -> dict[str, Any]:
    """Every image shows a cat and a dog; their numbers in the data set are 7 and 3."""
    boxes = [(i, j, box) for i in range(NUMBER) for j, box in enumerate(TRUE_BOXES)]
    return {
        "images": [{"id": 100 + i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE} for i in range(NUMBER)],
        "annotations": [
            {
                "id": number + 1,
                "image_id": 100 + i,
                "category_id": (7, 3)[j],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            for number, (i, j, (x1, y1, x2, y2)) in enumerate(boxes)
        ],
        "categories": [{"id": 3, "name": "Dog"}, {"id": 7, "name": "cat"}],
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(NUMBER):
        PIL.Image.new("RGB", (SIDE, SIDE), (i, i, i)).save(folder / f"{i}.png")
    (folder / "annotations.json").write_text(json.dumps(coco()), encoding="utf-8")
    return folder / "annotations.json"


def answers(wrong: int = 0) -> list[list[list[float]]]:
    """Right answers, but for the dogs of the first `wrong` images."""
    right = [[*box, 0.9 - 0.1 * j, j] for j, box in enumerate(TRUE_BOXES)]
    missed = [right[0], [0.0, 0, 2, 2, 0.8, 1]]
    return [missed if i < wrong else right for i in range(NUMBER)]


def test_figures_and_rows(data: Path) -> None:
    calls: list[tuple[int, int]] = []
    model = Recited(answers(), NAMES).train()
    report = evaluate_detection(
        model, data, batch_size=4, published={"box_AP": 0.5}, progress=lambda done, total: calls.append((done, total))
    )
    assert report.metrics.values["box_AP"] == pytest.approx(1.0) and report.num_images == NUMBER
    assert report.rows()[0] == ("box_AP", pytest.approx(1.0), 0.5) and report.rows()[1][2] is None
    assert [row["name"] for row in report.per_class()] == ["Dog", "cat"]
    assert calls == [(4, NUMBER), (NUMBER, NUMBER)] and model.training
    assert report.results_file is None and "box_AP_at_1000" in report.per_class()[0]
    json.dumps(report.to_dict())
    worse = evaluate_detection(Recited(answers(wrong=3), NAMES), data)
    dog, cat = (row["box_AP"] for row in worse.per_class())
    assert cat == pytest.approx(1.0) and dog < 0.6


@pytest.mark.parametrize("metric", ["voc2007", "voc2012", "openimages"])
def test_other_metrics(data: Path, metric: Any) -> None:
    report = evaluate_detection(Recited(answers(), NAMES), data, metric=metric)
    assert report.metrics.values["mAP"] == pytest.approx(1.0, abs=1e-9)
    assert report.per_class()[0]["objects"] == NUMBER


def test_workers_and_several_views(data: Path) -> None:
    plain = evaluate_detection(Recited(answers(wrong=2), NAMES), data)
    other = evaluate_detection(Recited(answers(wrong=2), NAMES), data, workers=1, batch_size=2)
    assert other.metrics == plain.metrics
    tta = DetectionTTA(((SIDE, SIDE),), flip=False, method="nms")
    assert evaluate_detection(Recited(answers(wrong=2), NAMES), data, tta=tta).metrics == plain.metrics


def test_results_file(data: Path, tmp_path: Path) -> None:
    report = evaluate_detection(Recited(answers(), NAMES), data, folder=tmp_path / "run")
    assert report.results_file == tmp_path / "run" / "results.json"
    entries = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert len(entries) == 2 * NUMBER
    assert entries[0] == {"image_id": 100, "category_id": 7, "bbox": [2, 2, 6, 7], "score": pytest.approx(0.9)}
    assert {entry["category_id"] for entry in entries} == {3, 7}


class Cut(Exception):
    """The run ends here."""


def test_a_cut_run_goes_on(data: Path, tmp_path: Path) -> None:
    def cut(done: int, _: int) -> None:
        if done >= 3:
            raise Cut

    folder = tmp_path / "run"
    with pytest.raises(Cut):
        evaluate_detection(Recited(answers(wrong=2), NAMES), data, folder=folder, progress=cut)
    log = folder / "predictions.jsonl"
    assert len(log.read_text(encoding="utf-8").splitlines()) == 4 and not (folder / "results.json").exists()
    with log.open("a", encoding="utf-8") as file:
        file.write('{"index":3,"boxes_xy')  # the machine went down within a line
    model = Recited(answers(wrong=2), NAMES)
    report = evaluate_detection(model, data, folder=folder)
    assert model.calls == NUMBER - 3
    whole = evaluate_detection(Recited(answers(wrong=2), NAMES), data)
    assert report.metrics == whole.metrics
    again = Recited(answers(wrong=2), NAMES)
    assert evaluate_detection(again, data, folder=folder).metrics == whole.metrics and again.calls == 0


def test_predictions_of_others_are_refused(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    evaluate_detection(Recited(answers(), NAMES), data, folder=folder)
    with pytest.raises(ValueError, match="another model"):
        evaluate_detection(Recited(answers(), NAMES, value=2.0), data, folder=folder)
    tta = DetectionTTA(((SIDE, SIDE),))
    with pytest.raises(ValueError, match="another way of looking"):
        evaluate_detection(Recited(answers(), NAMES), data, folder=folder, tta=tta)
    changed = coco()
    changed["images"].pop()
    (data.parent / "other.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(ValueError, match="another data set"):
        evaluate_detection(Recited(answers(), NAMES), data.parent / "other.json", folder=folder)


def test_what_has_changed_is_looked_at_again(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Replaced images are; other ground truth is compared with what was found."""
    caplog.set_level("INFO")
    folder, model = tmp_path / "run", Recited(answers(wrong=2), NAMES)

    def measured() -> tuple[DetectionReport, int, str]:
        model.calls = 0
        caplog.clear()
        report = evaluate_detection(model, data, folder=folder)
        alone = evaluate_detection(model, data)
        assert report.metrics == alone.metrics
        return report, model.calls - NUMBER, caplog.text

    first, calls, _ = measured()
    assert calls == NUMBER
    _, calls, text = measured()
    assert calls == 0 and f"all {NUMBER} images were measured before" in text
    PIL.Image.new("RGB", (SIDE, SIDE), (3, 3, 3)).save(data.parent / "0.png")  # answered without fault
    better, calls, text = measured()
    assert calls == 1 and "1 image replaced ('0.png') since it was written; they are looked at again" in text
    assert better.metrics.values["box_AP"] > first.metrics.values["box_AP"]  # type: ignore[operator]
    document = coco()
    document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] != 101]
    data.write_text(json.dumps(document), encoding="utf-8")
    _, calls, text = measured()
    assert calls == 0 and "ground truth of 1 image changed ('1.png')" in text and "what was found stays" in text
    assert "since it was written" not in measured()[2]
    (data.parent / "2.png").write_bytes(b"broken")
    assert measured()[0].skipped
    PIL.Image.new("RGB", (SIDE, SIDE), (2, 2, 2)).save(data.parent / "2.png")
    assert measured()[0].skipped == ()
    document["images"].pop()
    data.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ValueError, match=r"another data set; .* start afresh; 1 image removed \('"):
        measured()


def test_predictions_of_an_older_release_are_refused(data: Path, tmp_path: Path) -> None:
    folder, model = tmp_path / "run", Recited(answers(), NAMES)
    evaluate_detection(model, data, folder=folder)
    log = folder / "predictions.jsonl"
    header, *lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    older = json.loads(header) | {"format": "internimage predictions 1"}
    text = json.dumps(older) + "\n" + "".join(lines[:3])
    log.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"was begun by another release; choose another folder, or remove the file"):
        evaluate_detection(model, data, folder=folder)
    assert log.read_text(encoding="utf-8") == text


def test_one_process_works_in_a_folder(data: Path, tmp_path: Path) -> None:
    folder, model = tmp_path / "run", Recited(answers(), NAMES)
    folder.mkdir()
    (folder / ".results.json.0123abcd.tmp").touch()

    def again(done: int, total: int) -> None:
        with pytest.raises(BlockingIOError, match="in use by process"):
            evaluate_detection(model, data, folder=folder)

    evaluate_detection(model, data, folder=folder, progress=again)
    assert sorted(path.name for path in folder.iterdir()) == ["predictions.jsonl", "results.json"]


def test_a_full_disk_is_one_sentence(data: Path, tmp_path: Path) -> None:
    expected = r"^cannot write .*predictions\.jsonl: no space is left there[^\n]*$"
    with largest_file(800), pytest.raises(OSError, match=expected):
        evaluate_detection(Recited(answers(), NAMES), data, folder=tmp_path / "run")
    report = evaluate_detection(Recited(answers(), NAMES), data, folder=tmp_path / "run")
    assert report.metrics.values["box_AP"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json\n", "line 3"),
        ('{"index": 1}\n', "line 3"),
        ('{"index": 1, "boxes_xyxy": [[0,0,1,1]], "scores": [], "labels": []}\n', "line 3"),
    ],
)
def test_damaged_predictions_are_named(data: Path, tmp_path: Path, line: str, message: str) -> None:
    folder = tmp_path / "run"
    evaluate_detection(Recited(answers(), NAMES), data, folder=folder)
    log = folder / "predictions.jsonl"
    first = log.read_text(encoding="utf-8").splitlines(keepends=True)
    log.write_text("".join([*first[:2], line, *first[2:]]), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        evaluate_detection(Recited(answers(), NAMES), data, folder=folder)
    log.write_text('{"format": "something else"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="no predictions file"):
        evaluate_detection(Recited(answers(), NAMES), data, folder=folder)


def test_broken_images_are_left_out_and_listed(data: Path, tmp_path: Path) -> None:
    (data.parent / "1.png").write_bytes(b"broken")
    PIL.Image.new("RGB", (5, 5)).save(data.parent / "4.png")  # not the size in the annotations
    for folder in (None, tmp_path / "run", tmp_path / "run"):
        report = evaluate_detection(Recited(answers(), NAMES), data, batch_size=2, folder=folder)
        assert report.num_images == NUMBER - 2 and [index for index, _ in report.skipped] == [1, 4]
        assert "1.png" in report.skipped[0][1] and "4.png" in report.skipped[1][1]
        assert report.metrics.values["box_AP"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"more than 1 images cannot be read[\s\S]*1\.png"):
        evaluate_detection(Recited(answers(), NAMES), data, max_unreadable=1)


def test_classes_of_model_and_data() -> None:
    assert known_classes(["hot dog", "Cat"], 2, ["cat", "hot_dog"]).data_classes.tolist() == [1, 0]
    assert known_classes(None, 2, ["cat", "dog"]).data_classes.tolist() == [0, 1]
    assert known_classes(["a", "b"], 2, ["0", "1"]).data_classes.tolist() == [0, 1]
    assert known_classes(["a", "b", "c"], 3, ["c", "a"]).data_classes.tolist() == [1, -1, 0]
    with pytest.raises(ValueError, match="3 classes but the data set has 2"):
        known_classes(None, 3, ["cat", "dog"])
    with pytest.raises(ValueError, match=r"does not know 'dog' .* its own are 'cat', 'owl'"):
        known_classes(["cat", "owl"], 2, ["cat", "dog"])
    with pytest.raises(ValueError, match="look like the parts of a data set: give the folder"):
        known_classes(["cat", "owl"], 2, ["Train", "Test", "Val"])


@pytest.mark.parametrize("order", ["1234567890", "0123456789", "9876543210"])
def test_digits_are_names(order: str, data: Path, tmp_path: Path) -> None:
    """The model finds a 1 and a 2 in every image; the categories stand in any order, under any number."""
    document = coco()
    numbers = {name: 100 + i for i, name in enumerate(order)}
    document["categories"] = [{"id": number, "name": name} for name, number in numbers.items()]
    for entry in document["annotations"]:
        entry["category_id"] = numbers["1" if entry["category_id"] == 7 else "2"]
    data.write_text(json.dumps(document), encoding="utf-8")
    report = evaluate_detection(Recited(answers(), tuple("1234567890")), data, folder=tmp_path / "run")
    assert report.metrics.values["box_AP"] == pytest.approx(1.0)
    entries = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert [entry["category_id"] for entry in entries[:2]] == [numbers["1"], numbers["2"]]


def test_classes_that_the_data_lack(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen = [[*image, [0.0, 0, 4, 4, 0.95, 2]] for image in answers()]  # an owl in every image
    report = evaluate_detection(Recited(seen, ("cat", "dog", "owl")), data, folder=tmp_path / "run")
    assert report.metrics.values["box_AP"] == pytest.approx(1.0)
    assert report.absent_classes == ("owl",) and report.to_dict()["absent_classes"] == ["owl"]
    assert "lacks 1 of the 3 classes of the model ('owl')" in caplog.text
    assert len(json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))) == 2 * NUMBER
    with pytest.raises(ValueError, match="does not know 'Dog'"):
        evaluate_detection(Recited(answers(), ("cat",)), data)


def test_numbers_of_results_files() -> None:
    coco_names = label_set("coco_80").class_names
    turned = category_ids(coco_names[::-1])
    assert turned[:2] == (90, 89) and turned[-1] == 1
    assert category_ids(["person", "car"]) == (0, 1) and category_ids(["cat"] * 80) == tuple(range(80))
    assert category_ids(label_set("lvis_v1_1203").class_names)[-1] == 1203


def test_wrong_requests(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not know 'Dog', 'cat' of the classes"):
        evaluate_detection(Recited(answers(), ("a", "b", "c")), data)
    with pytest.raises(ValueError, match="metric must be one of"):
        evaluate_detection(Recited(answers(), NAMES), data, metric="map")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size"):
        evaluate_detection(Recited(answers(), NAMES), data, batch_size=0)
    with pytest.raises(FileNotFoundError):
        evaluate_detection(Recited(answers(), NAMES), tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match="images belongs to an annotations file"):
        evaluate_detection(Recited(answers(), NAMES), tmp_path, images=tmp_path)


def test_arguments_of_older_releases_warn(data: Path) -> None:
    older: dict[str, Any] = {"looks": DetectionTTA(((SIDE, SIDE),), flip=False, method="nms"), "pictures": data.parent}
    with pytest.warns(DeprecationWarning, match="of evaluate_detection is") as warned:
        report = evaluate_detection(Recited(answers(), NAMES), data, **older)
    assert len(warned) == 2 and {entry.filename for entry in warned} == {__file__}
    with pytest.warns(DeprecationWarning, match=r"DetectionReport\.figures is metrics now"):
        assert report.figures is report.metrics


def test_views_and_how_they_are_merged(data: Path) -> None:
    model = Recited(answers(), NAMES)
    merged = evaluate_detection(model, data, tta=True, merge="nms")
    assert model.calls == 6 * NUMBER and merged.metrics.values["box_AP"] is not None
    with pytest.raises(ValueError, match=r"merge='nms' is for several views .*; give tta=True, too"):
        evaluate_detection(model, data, merge="nms")


def test_published_metrics() -> None:
    composite = info("dino_4scale_cbinternimage_h_objects365_coco")
    assert published_metrics(composite, "coco") == {"box_AP": 0.645}
    assert published_metrics(composite, "coco", tta=True) == {"box_AP": 0.65}
    assert published_metrics(composite, "lvis") == {}
    lvis = info("dino_4scale_cbinternimage_h_objects365_lvis")
    assert published_metrics(lvis, "lvis") == {"box_AP": 0.623}
    assert published_metrics(lvis, "lvis", lvis_minival=True) == {"box_AP": 0.658}
    voc = info("dino_4scale_cbinternimage_h_objects365_voc0712")
    assert [published_metrics(voc, year)["mAP"] for year in ("voc2007", "voc2012")] == [0.94, 0.972]
    assert published_metrics(info("mask_rcnn_internimage_t_fpn_1x_coco"), "coco")["mask_AP"] == 0.425
    assert set(published_metrics(info("mask_rcnn_internimage_pico_closet"), "coco")) == {"box_AP", "mask_AP"}


def test_fingerprints_differ() -> None:
    first, second = Recited(answers(), NAMES), Recited(answers(), NAMES, value=1.0 + 1e-6)
    assert model_fingerprint(first) == model_fingerprint(Recited(answers(), NAMES)) != model_fingerprint(second)
