from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.features
import PIL.Image
import pytest
from typer.testing import Result

import internimage
from internimage.cli.predicting.drawings import Drawing
from internimage.cli.predicting.sources import find_sources
from internimage.segmentation import SegFormerConfig

Run = Callable[..., Result]


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_answers_equal_those_of_the_library(run: Run, pets: Path, photos: Path) -> None:
    result = run("predict", pets, photos, "--json", "--batch-size", 2, "--top-k", 2)
    assert result.exit_code == 0
    rows = lines(result.stdout)
    files = [photos / "a.png", photos / "b.jpg", photos / "more" / "a.png"]
    assert [row["image"] for row in rows] == [str(file) for file in files]
    for row, answer in zip(rows, internimage.load(pets).predict(files), strict=True):
        assert (row["height"], row["width"]) == answer.original_hw
        assert row["name"] == answer.name and row["score"] == pytest.approx(answer.score, abs=1e-4)
        assert len(row["top"]) == 2 and "drawn" not in row


def test_out_gets_lines_and_drawn_images(run: Run, pets: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result = run("predict", pets, photos, "--out", out)
    assert result.exit_code == 0
    rows = lines((out / "predictions.jsonl").read_text(encoding="utf-8"))
    assert all(f"{row['score']:.1%}" in result.stdout for row in rows)
    assert str(out) in result.stderr.replace("\n", "")
    drawn = [Path(row["drawn"]) for row in rows]
    assert sorted(drawn) == sorted(out.glob("*.jpg")) and len(set(drawn)) == 3  # two sources are named a.png
    for path in drawn:
        with PIL.Image.open(path) as image:
            assert image.width >= 360
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "a_2.jpg", "b.jpg", "predictions.jsonl"]


def test_without_drawing(run: Run, pets: Path, photos: Path, tmp_path: Path) -> None:
    run("predict", pets, photos, "--out", tmp_path / "out", "--no-draw")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.jsonl"]


def test_sources_are_never_overwritten(run: Run, pets: Path, photos: Path) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    assert run("predict", pets, photos / "b.jpg", "--out", photos).exit_code == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    assert (photos / "b_2.jpg").exists()


def test_one_bad_image_does_not_stop_the_others(run: Run, pets: Path, photos: Path, tmp_path: Path) -> None:
    whole = (photos / "b.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.png").touch()
    result = run("predict", pets, photos, photos / "notes.txt", photos / "missing.png", "--out", tmp_path / "out")
    assert result.exit_code == 1
    for name in ("cut.jpg", "empty.png", "notes.txt", "missing.png"):
        assert str(photos / name) in result.stderr
    assert "4 of 7 images could not be read" in result.stderr
    assert result.stdout.count("cannot be read") == 4 and "%" in result.stdout
    rows = lines((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8"))
    assert [("error" in row, "score" in row) for row in rows].count((True, False)) == 4
    assert len(rows) == 7


def test_every_image_bad(run: Run, pets: Path, photos: Path) -> None:
    result = run("predict", pets, photos / "notes.txt", "--json")
    assert result.exit_code == 1
    assert "error" in lines(result.stdout)[0]


def test_precision_and_backend(run: Run, pets: Path, photos: Path) -> None:
    scores = [
        [row["score"] for row in lines(run("predict", pets, photos, "--json", *options).stdout)]
        for options in ((), ("--backend", "reference"), ("--dtype", "float64"), ("--dtype", "bfloat16"))
    ]
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)
    assert scores[2] == pytest.approx(scores[0], abs=1e-4)
    assert scores[3] == pytest.approx(scores[0], abs=0.2) and scores[3] != scores[0]


def test_find_sources(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / ".hidden.png").touch()
    monkeypatch.chdir(photos)
    assert find_sources(["*.png"]) == [Path("a.png")]
    assert find_sources(["**/*.png"]) == [Path("a.png"), Path("more/a.png")]
    assert find_sources([f"{photos}/*.jpg"]) == [photos / "b.jpg"]
    assert find_sources([".", "a.png"]) == [Path("a.png"), Path("b.jpg"), Path("more/a.png")]
    assert find_sources(["notes.txt", "gone.jpg"]) == [Path("notes.txt"), Path("gone.jpg")]
    (photos / "odd[1].png").write_bytes((photos / "a.png").read_bytes())
    assert find_sources(["odd[1].png"]) == [Path("odd[1].png")]


def test_the_progress_bar_stays_out_of_the_result(pets: Path, photos: Path) -> None:
    pty = pytest.importorskip("pty")
    terminal, slave = pty.openpty()
    shown = bytearray()

    def drain() -> None:  # a full terminal would block the command
        try:
            while chunk := os.read(terminal, 4096):
                shown.extend(chunk)
        except OSError:  # the other end is closed
            return

    reader = threading.Thread(target=drain)
    reader.start()
    command = [sys.executable, "-m", "internimage", "predict", pets, photos, "--json", "--batch-size", "1"]
    try:
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=slave, text=True, env={**os.environ, "TERM": "xterm"}
        )
    finally:
        os.close(slave)
        reader.join()
        os.close(terminal)
    assert result.returncode == 0
    assert len(lines(result.stdout)) == 3
    assert b"pictures" in shown and b"/3" in shown


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["{pets}", "{photos}/*.bmp"], 2, "there is no image in"),
        (["intrnimage_t_1k", "{photos}"], 2, "internimage_t_1k_224"),
        (["{photos}/notes.txt", "{photos}"], 1, "notes.txt"),
        (["{pets}", "{photos}", "--out", "{photos}/notes.txt"], 1, "notes.txt"),
        (["{pets}", "{photos}", "--top-k", "0"], 2, "--top-k"),
        (["{pets}", "{photos}", "--batch-size", "-1"], 2, "--batch-size"),
    ],
)
def test_wrong_requests(run: Run, pets: Path, photos: Path, arguments: list[str], exit_code: int, message: str) -> None:
    result = run("predict", *(text.format(pets=pets, photos=photos) for text in arguments))
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert message in " ".join(result.stderr.split())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(run: Run, pets: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    result = run("predict", pets, photos, "--out", tmp_path / "locked" / "out")
    assert result.exit_code == 1 and "Permission denied" in result.stderr


def test_a_full_disk_is_reported_and_keeps_the_lines_so_far(
    run: Run, pets: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PIL.Image.Image, "save", full)
    result = run("predict", pets, photos, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "No space left on device" in result.stderr
    assert not (tmp_path / "out" / "predictions.jsonl").exists()
    assert not list((tmp_path / "out").glob("*.jpg"))
    run("predict", pets, photos, "--out", tmp_path / "out", "--no-draw")
    assert (tmp_path / "out" / "predictions.jsonl").exists()


def test_segmentors_write_label_maps(run: Run, photos: Path, tmp_path: Path) -> None:
    head = SegFormerConfig(channels=8)
    model = internimage.create("segformer", backbone="internimage_pico", class_names=["sky", "road"], head=head)
    scene = internimage.save_model(model, tmp_path / "scene.safetensors")
    result = run("predict", scene, photos, "--out", tmp_path / "out")
    assert result.exit_code == 0 and "area" in result.stdout
    for row in lines((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8")):
        assert sum(entry["share"] for entry in row["classes"]) == pytest.approx(1.0, abs=1e-4)
        with PIL.Image.open(row["label_map"]) as labels, PIL.Image.open(row["drawn"]) as drawn:
            assert labels.size == (row["width"], row["height"]) and drawn.width >= 360
    refused = run("predict", scene, photos, "--classes", "sky")
    assert refused.exit_code == 2 and "--classes is for detectors" in " ".join(refused.stderr.split())


def test_many_sources_of_one_name_take_no_longer_than_others(tmp_path: Path) -> None:
    drawing = Drawing(tmp_path, [], draws=True, score_threshold=0.3)
    started = time.monotonic()
    names = {drawing.free("img", ".jpg").name for _ in range(5000)}
    assert time.monotonic() - started < 5  # minutes, where each one tries all names before it
    assert len(names) == 5000 and {"img.jpg", "img_2.jpg", "img_5000.jpg"} <= names


def test_addresses_are_named_as_they_are(run: Run, pets: Path) -> None:
    result = run("predict", pets, "https://example.com/a.jpg", "--json")
    [row] = lines(result.stdout)
    assert result.exit_code == 1 and row["image"] == "https://example.com/a.jpg"
    assert "https://example.com/a.jpg: addresses are not downloaded" in row["error"]


def test_folders_give_every_format_that_is_read(run: Run, pets: Path, tmp_path: Path) -> None:
    names = [f"{i}.{suffix}" for i, suffix in enumerate(("avif", "webp", "tga", "jp2", "qoi", "pcx", "dib", "jfif"))]
    for name in names:
        if name == "0.avif" and not PIL.features.check("avif"):
            (tmp_path / name).write_bytes(b"0")  # listed, and named as what cannot be read
            continue
        PIL.Image.new("RGB", (40, 30), "teal").save(tmp_path / name, {"jp2": "JPEG2000", "jfif": "JPEG"}.get(name[2:]))
    (tmp_path / "c.heic").write_bytes(b"0")
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    result = run("predict", pets, tmp_path, "--json")
    assert [Path(row["image"]).name for row in lines(result.stdout)] == names
    assert "c.heic" in result.stderr and "notes.txt" not in result.stderr


def test_a_range_of_values_on_the_command_line(run: Run, pets: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (40, 40), dtype=np.uint16)
    PIL.Image.fromarray(values).save(tmp_path / "a.png")
    PIL.Image.fromarray(np.rint(values * (255 / 4095)).astype(np.uint8)).save(tmp_path / "b.png")
    [found] = lines(run("predict", pets, tmp_path / "a.png", "--json", "--value-range", 0, 4095).stdout)
    [expected] = lines(run("predict", pets, tmp_path / "b.png", "--json").stdout)
    assert found["score"] == pytest.approx(expected["score"], abs=1e-5)
    assert run("predict", pets, tmp_path / "a.png", "--value-range", 9, 9).exit_code == 1
