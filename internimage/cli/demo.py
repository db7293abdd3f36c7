"""`internimage demo`: the bundled models predict for the bundled images, without a network."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from internimage.cli.loading import load_predictor
from internimage.cli.terminal import (
    BackendOption,
    DeviceOption,
    JsonOption,
    note,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from internimage.types import Classification

CLASSIFIER = "internimage_pico_fashion"
DETECTOR = "mask_rcnn_internimage_pico_closet"
SEGMENTOR = "upernet_internimage_pico_closet"
SCENE, SCENE_COPY = "closet_scene.jpg", "scene.jpg"
GARMENT, GARMENT_COPY = "fashion_0018_bag.png", "garment.png"
SHEET_FILE, PREDICTIONS_FILE = "contact_sheet.png", "predictions.json"
SCORE_THRESHOLD = 0.5
DRAWN_SIDE = 448  # of the scene, which is small; its pixels stay visible


@dataclass(frozen=True)
class _Runner:
    """Loads models, runs them and tells how long that took."""

    device: str
    backend: str
    out: Path

    def predict(self, name: str, images: Sequence[Path]) -> tuple[Any, list[Any], str]:
        """Return a model, its predictions, and its seconds and device in words."""
        model = load_predictor(name, device=self.device, dtype="float32", backend=self.backend)
        started = time.perf_counter()
        results = model.predict(list(images))
        return model, results, f"{time.perf_counter() - started:.2f} s on {model.device}"


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the drawn images and the predictions.")] = Path(
        "internimage_demo"
    ),
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """See it work: bundled models classify images, find objects in a scene, and label its pixels.

    Needs no network. Shows tables, and writes a contact sheet, two drawn scenes, the scene and a garment to try things
    on, and a JSON file.
    """
    from internimage.files import replacing

    runner = _Runner(device, backend, out)
    for name, copy in ((SCENE, SCENE_COPY), (GARMENT, GARMENT_COPY)):
        with replacing(out / copy) as temporary:
            temporary.write_bytes(_bundled(name).read_bytes())
    summary = _classify(runner, shows=not as_json)
    summary["detection"] = _detect(runner, shows=not as_json)
    summary["segmentation"] = _segment(runner, shows=not as_json)
    with replacing(out / PREDICTIONS_FILE) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print_json(summary)


def _classify(runner: _Runner, *, shows: bool) -> dict[str, Any]:
    """Classify the bundled garments, whose true classes their names hold."""
    from internimage.checkpoints.catalog import BUNDLED
    from internimage.visualize import contact_sheet

    paths = sorted((BUNDLED / "pictures").glob("fashion_*.png"))
    classifier, results, effort = runner.predict(CLASSIFIER, paths)
    targets = [_target(path, classifier.config.class_names or ()) for path in paths]
    num_right = sum(result.name == target for result, target in zip(results, targets, strict=True))
    heading = f"{CLASSIFIER}: {num_right} of {len(paths)} right"
    _save(contact_sheet(results, paths, targets=targets, heading=heading), runner.out / SHEET_FILE)
    if shows:
        _print_predictions(results, targets, paths)
    note(f"{heading}, {effort}; look at {runner.out / SHEET_FILE}")
    rows = [
        {"picture": path.name, "truth": target, **result.to_dict(3)}
        for path, target, result in zip(paths, targets, results, strict=True)
    ]
    return {
        "model": CLASSIFIER,
        "right": num_right,
        "pictures": rows,
        "contact_sheet": str(runner.out / SHEET_FILE),
    }


def _detect(runner: _Runner, *, shows: bool) -> dict[str, Any]:
    """Find the garments of the bundled scene."""
    path = _bundled(SCENE)
    _, [found], effort = runner.predict(DETECTOR, [path])
    found = found.filter(score_threshold=SCORE_THRESHOLD)
    file = _draw(found, path, runner.out / "detection.png")
    if shows:
        boxes = [", ".join(f"{value:.0f}" for value in box) for box in found.boxes_xyxy.tolist()]
        cells = [
            [name, f"{score:.1%}", box]
            for name, score, box in zip(found.names, found.scores.tolist(), boxes, strict=True)
        ]
        print_table(["object", "score", "box (left, top, right, bottom)"], cells, right="score")
    note(f"{DETECTOR}: {len(found)} objects, {effort}; look at {file}")
    return {"model": DETECTOR, "picture": path.name, **found.to_dict(), "drawing": str(file)}


def _segment(runner: _Runner, *, shows: bool) -> dict[str, Any]:
    """Label the pixels of the bundled scene."""
    path = _bundled(SCENE)
    _, [labeled], effort = runner.predict(SEGMENTOR, [path])
    file = _draw(labeled, path, runner.out / "segmentation.png")
    if shows:
        cells = [[name, f"{fraction:.1%}"] for name, fraction in labeled.areas()]
        print_table(["class", "share of the image"], cells, right="share of the image")
    note(f"{SEGMENTOR}: {len(labeled.areas())} classes, {effort}; look at {file}")
    return {"model": SEGMENTOR, "picture": path.name, **labeled.to_dict(), "drawing": str(file)}


def _bundled(name: str) -> Path:
    """Return an image that comes with the package."""
    from internimage.checkpoints.catalog import BUNDLED

    return BUNDLED / "pictures" / name


def _draw(result: Any, path: Path, file: Path) -> Path:
    from internimage.visualize import draw

    _save(draw(result, path, longest_side=DRAWN_SIDE), file)
    return file


def _save(image: Any, file: Path) -> None:
    from internimage.files import replacing

    with replacing(file) as temporary:
        image.save(temporary, "PNG")


def _target(path: Path, class_names: tuple[str, ...]) -> str:
    """Return the class in the name of a bundled image, `fashion_<number>_<class>.png`."""
    written = path.stem.rsplit("_", 1)[1]
    return next(name for name in class_names if re.sub(r"[^a-z0-9]+", "-", name.lower()).startswith(written))


def _print_predictions(results: list[Classification], targets: list[str], paths: list[Path]) -> None:
    cells: list[list[Any]] = []
    for result, target, path in zip(results, targets, paths, strict=True):
        style = "green" if result.name == target else "red"
        cells.append([path.name, target, Text(result.name, style), f"{result.score:.1%}"])
    print_table(["picture", "truth", "answer", "probability"], cells, right="probability")
