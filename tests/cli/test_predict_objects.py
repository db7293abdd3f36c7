"""`internimage predict` with a detector, and with videos and cameras."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from typer.testing import Result

import internimage
from internimage.cli.predicting.predictions import Prediction, print_predictions
from internimage.data.images import video
from internimage.data.images.video import Frame, VideoReader, VideoWriter
from internimage.detection import Detector
from internimage.detection.task import TASK
from internimage.evaluation.object_classes import category_ids
from internimage.flow import PredictionOptions
from internimage.segmentation import SegFormerConfig
from internimage.types import Detections, RunLengthMasks

Run = Callable[..., Result]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def library(path: Path) -> Detector:
    model = internimage.load(path)
    assert isinstance(model, Detector)
    return model


def test_lines_equal_the_answers_of_the_library(run: Run, animals: Path, photos: Path) -> None:
    rows = lines(run("predict", animals, photos, "--json", "--score-threshold", 0.4).stdout)
    files = [photos / "a.png", photos / "b.jpg", photos / "more" / "a.png"]
    assert [row["image"] for row in rows] == [str(file) for file in files]
    found = 0
    for row, answer in zip(rows, library(animals).predict(files, score_threshold=0.4, batch_size=3), strict=True):
        assert (row["height"], row["width"]) == answer.original_hw
        assert [entry["name"] for entry in row["objects"]] == answer.names
        scores = [entry["score"] for entry in row["objects"]]
        assert scores == pytest.approx(answer.scores.tolist(), abs=1e-4) and all(score >= 0.4 for score in scores)
        assert "mask" not in row["objects"][0]
        found += len(answer)
    assert found > 0


def test_classes_and_masks(run: Run, animals: Path, photos: Path) -> None:
    [row] = lines(
        run(
            "predict", animals, photos / "a.png", "--json", "--classes", "owl, cat", "--masks", "--score-threshold", 0
        ).stdout
    )
    names = {entry["name"] for entry in row["objects"]}
    assert names and names <= {"owl", "cat"}
    [expected] = library(animals).predict([photos / "a.png"])
    kept = expected.filter(classes=["owl", "cat"]).run_length_masks
    assert isinstance(kept, RunLengthMasks)
    assert [entry["mask"] for entry in row["objects"]] == kept.to_coco()
    refused = run("predict", animals, photos, "--classes", "yak")
    assert refused.exit_code == 1 and "unknown class 'yak'" in refused.stderr


def test_drawn_images_and_table(run: Run, animals: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"broken")
    result = run("predict", animals, photos, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "1 of 4 images could not be read" in result.stderr
    rows = lines((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8"))
    assert sum("error" in row for row in rows) == 1 and "objects" in result.stdout
    for row in rows:
        if "drawn" in row:
            with PIL.Image.open(row["drawn"]) as drawn:
                assert drawn.size == (row["width"], row["height"])


def test_a_results_file(run: Run, animals: Path, photos: Path, tmp_path: Path) -> None:
    for i, name in enumerate(("000000000139.png", "000000000285.png")):
        PIL.Image.open(photos / "a.png").rotate(180 * i).save(tmp_path / name)
    out = tmp_path / "out"
    result = run("predict", animals, tmp_path / "*.png", "--format", "coco", "--out", out, "--no-draw", "--json")
    entries = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert json.loads(result.stdout) == entries
    assert {entry["image_id"] for entry in entries} == {139, 285}
    assert {entry["category_id"] for entry in entries} <= {0, 1, 2} and "counts" in entries[0]["segmentation"]
    [first, _] = library(animals).predict(sorted(tmp_path.glob("*.png")), batch_size=2)
    own = [entry for entry in entries if entry["image_id"] == 139]
    assert [entry["score"] for entry in own] == pytest.approx(first.scores.tolist(), abs=1e-4)  # low scores, too
    rows = lines((out / "predictions.jsonl").read_text(encoding="utf-8"))
    assert [row["image_id"] for row in rows] == [139, 285]
    unnumbered = json.loads(run("predict", animals, photos, "--format", "coco", "--json").stdout)
    assert {entry["image_id"] for entry in unnumbered} == {1, 2, 3}
    assert run("predict", animals, photos, "--format", "coco").exit_code == 2


def test_numbers_of_classes() -> None:
    coco = internimage.data.labels.label_set("coco_80").class_names
    assert dict(zip(coco, category_ids(coco), strict=True))["toothbrush"] == 90
    assert category_ids(internimage.data.labels.label_set("lvis_v1_1203").class_names)[-1] == 1203


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    pytest.importorskip("av")
    rng = np.random.default_rng(0)
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, Fraction(10)) as writer:
        for i in range(6):
            writer.write(PIL.Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)), i / 10)
    return path


@pytest.fixture
def road(tmp_path: Path) -> Path:
    head = SegFormerConfig(channels=8)
    model = internimage.create("segformer", backbone="internimage_pico", class_names=["sky", "road"], head=head)
    return internimage.save_model(model, tmp_path / "road.safetensors")


@pytest.mark.parametrize("kind", ["objects", "classes", "top"])
def test_a_video_of_every_task(
    run: Run, kind: str, animals: Path, road: Path, pets: Path, clip: Path, tmp_path: Path
) -> None:
    model = {"objects": animals, "classes": road, "top": pets}[kind]
    result = run("predict", model, clip, "--out", tmp_path / "out", "--batch-size", 4)
    assert result.exit_code == 0 and "annotated videos" in result.stderr
    rows = lines((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8"))
    assert [row["frame"] for row in rows] == list(range(6)) and all(kind in row for row in rows)
    assert [row["time_s"] for row in rows] == pytest.approx([i / 10 for i in range(6)], abs=1e-3)
    with VideoReader(tmp_path / "out" / "clip.mp4") as reader:
        frames = list(reader)
    assert len(frames) == 6 and frames[-1].time_s == pytest.approx(0.5, abs=0.01)
    assert clip.stat().st_size > 0  # the source is untouched


def test_parts_of_a_video_beside_images(run: Run, animals: Path, clip: Path, photos: Path) -> None:
    result = run(
        "predict", animals, photos / "a.png", clip, photos / "b.jpg", "--every", 2, "--max-frames", 2, "--json"
    )
    rows = lines(result.stdout)
    assert [(Path(row["image"]).name, row.get("frame")) for row in rows] == [
        *(("a.png", None), ("clip.mp4", 0), ("clip.mp4", 2), ("b.jpg", None))
    ]


def test_damaged_videos_do_not_stop_the_others(run: Run, animals: Path, clip: Path, photos: Path) -> None:
    (photos / "bad.mp4").write_bytes(clip.read_bytes()[:500])
    result = run("predict", animals, photos / "bad.mp4", photos / "a.png", "camera:987", "--json")
    assert result.exit_code == 1 and "camera 987" in result.stderr and "bad.mp4" in result.stderr
    assert ["error" in row for row in lines(result.stdout)] == [True, False, True]


def test_frames_before_the_damage_are_answered(
    run: Run, animals: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = VideoReader.__iter__

    def damaged(self: VideoReader) -> Iterator[Frame]:
        for frame in read(self):
            if frame.index == 3:
                raise video.BadVideo("clip.mp4, frame 3: the video is damaged there")
            yield frame

    monkeypatch.setattr(VideoReader, "__iter__", damaged)
    result = run("predict", animals, clip, "--out", tmp_path / "out", "--batch-size", 8)
    rows = lines((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8"))
    assert result.exit_code == 1 and [row.get("frame") for row in rows] == [0, 1, 2, None]
    monkeypatch.undo()
    with VideoReader(tmp_path / "out" / "clip.mp4") as reader:
        assert len(list(reader)) == 3


class Camera:
    """Gives frames until someone interrupts."""

    rate = Fraction(5)

    def __init__(self, source: object, **_: object) -> None:
        assert str(source) == "camera:0"

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __iter__(self) -> Iterator[Frame]:
        for i in range(3):
            yield Frame(i, i / 5, PIL.Image.new("RGB", (40, 30), (80 * i, 0, 0)))
        raise KeyboardInterrupt


def test_a_camera_until_it_is_interrupted(
    run: Run, animals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    monkeypatch.setattr(video, "VideoReader", Camera)
    result = run("predict", animals, "camera:0", "--out", tmp_path / "out")
    assert result.exit_code == 0 and "stopped" in result.stderr
    assert len(lines((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8"))) == 3
    monkeypatch.undo()
    with VideoReader(tmp_path / "out" / "camera_0.mp4") as reader:
        assert len(list(reader)) == 3


def test_the_table_of_objects(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("cat", "dog", "owl", "yak", "elk")
    found = Detections(torch.zeros(6, 4), torch.full((6,), 0.9), torch.tensor([0, 0, 1, 2, 3, 4]), names, (8, 8))
    both = (found, found.select(torch.tensor([], dtype=torch.int64)))
    predictions = [Prediction({"image": "a.png"}, TASK.present(result, PredictionOptions(), 1)) for result in both]
    print_predictions(predictions, 2, headings=TASK.headings, shown_score=0.3)
    shown = capsys.readouterr().out
    assert "2 cat, 1 dog, 1 owl, 1 yak and 1 more classes" in shown and "nothing" in shown and "90.0%" in shown


def test_the_command_line_answers_as_the_library_does(run: Run, animals: Path, photos: Path) -> None:
    result = run("predict", animals, photos, "--json", "--batch-size", 1)
    rows = lines(result.stdout)
    for row, answer in zip(rows, library(animals).predict([row["image"] for row in rows]), strict=True):
        assert row["objects"] == answer.to_dict()["objects"]
    shown = run("predict", animals, photos)
    doubtful = sum(entry["score"] < 0.3 for row in rows for entry in row["objects"])
    assert doubtful > 1 and f"not shown: {doubtful} objects with a score below 0.3" in shown.stderr.replace("\n", " ")
    assert str(sum(entry["score"] >= 0.3 for entry in rows[0]["objects"])) in shown.stdout


def test_the_size_of_drawn_images_is_an_option(run: Run, animals: Path, photos: Path, tmp_path: Path) -> None:
    run("predict", animals, photos, "--out", tmp_path / "out", "--draw-size", 448)
    for row in lines((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8")):
        with PIL.Image.open(row["drawn"]) as drawn:
            assert 400 <= max(drawn.size) <= 448
