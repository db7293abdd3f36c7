"""`internimage demo`: the bundled models predict for the bundled images, without a network."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from internimage.cli.loading import load_predictor
from internimage.cli.terminal import BackendOption, DeviceOption, JsonOption, note, print_json, print_table

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
    show: Callable[..., None]  # prints a table, or nothing

    def predict(self, name: str, images: Sequence[Path]) -> tuple[Any, list[Any], str]:
        """Return a model, its predictions, and its seconds and device in words."""
        model = load_predictor(name, device=self.device, dtype="float32", backend=self.backend)
        started = time.perf_counter()
        results = model.predict(list(images))
        return model, results, f"{time.perf_counter() - started:.2f} s on {model.device}"

    def save(self, image: Any, name: str) -> Path:
        """Write an image into the folder; return its path."""
        from internimage.files import replacing

        with replacing(self.out / name) as temporary:
            image.save(temporary, "PNG")
        return self.out / name


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

    runner = _Runner(device, backend, out, (lambda *_, **__: None) if as_json else print_table)
    for name, copy in ((SCENE, SCENE_COPY), (GARMENT, GARMENT_COPY)):
        with replacing(out / copy) as temporary:
            temporary.write_bytes((_pictures() / name).read_bytes())
    summary = _classify(runner)
    summary["detection"] = _detect(runner)
    summary["segmentation"] = _segment(runner)
    with replacing(out / PREDICTIONS_FILE) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print_json(summary)


def _classify(runner: _Runner) -> dict[str, Any]:
    """Classify the bundled garments, whose true classes their names hold."""
    from internimage.visualize import contact_sheet

    paths = sorted(_pictures().glob("fashion_*.png"))
    classifier, results, effort = runner.predict(CLASSIFIER, paths)
    targets = [_target(path, classifier.config.class_names or ()) for path in paths]
    num_right = sum(result.name == target for result, target in zip(results, targets, strict=True))
    heading = f"{CLASSIFIER}: {num_right} of {len(paths)} right"
    sheet = runner.save(contact_sheet(results, paths, targets=targets, heading=heading), SHEET_FILE)
    cells, rows = [], []
    for path, target, result in zip(paths, targets, results, strict=True):
        style = "green" if result.name == target else "red"
        cells.append([path.name, target, Text(result.name, style), f"{result.score:.1%}"])
        rows.append({"picture": path.name, "truth": target, **result.to_dict(3)})
    runner.show(["picture", "truth", "answer", "probability"], cells, right="probability")
    note(f"{heading}, {effort}; look at {sheet}")
    return {"model": CLASSIFIER, "right": num_right, "pictures": rows, "contact_sheet": str(sheet)}


def _detect(runner: _Runner) -> dict[str, Any]:
    """Find the garments of the bundled scene."""
    _, [found], effort = runner.predict(DETECTOR, [_pictures() / SCENE])
    found = found.filter(score_threshold=SCORE_THRESHOLD)
    cells = [
        [name, f"{score:.1%}", ", ".join(f"{value:.0f}" for value in box)]
        for name, score, box in zip(found.names, found.scores.tolist(), found.boxes_xyxy.tolist(), strict=True)
    ]
    runner.show(["object", "score", "box (left, top, right, bottom)"], cells, right="score")
    return _drawn(runner, DETECTOR, found, "detection.png", f"{len(found)} objects, {effort}")


def _segment(runner: _Runner) -> dict[str, Any]:
    """Label the pixels of the bundled scene."""
    _, [labeled], effort = runner.predict(SEGMENTOR, [_pictures() / SCENE])
    cells = [[name, f"{fraction:.1%}"] for name, fraction in labeled.areas()]
    runner.show(["class", "share of the image"], cells, right="share of the image")
    return _drawn(runner, SEGMENTOR, labeled, "segmentation.png", f"{len(cells)} classes, {effort}")


def _drawn(runner: _Runner, model: str, result: Any, name: str, told: str) -> dict[str, Any]:
    """Draw a result on the scene, say so, and return both as JSON types."""
    from internimage.visualize import draw

    file = runner.save(draw(result, _pictures() / SCENE, longest_side=DRAWN_SIDE), name)
    note(f"{model}: {told}; look at {file}")
    return {"model": model, "picture": SCENE, **result.to_dict(), "drawing": str(file)}


def _pictures() -> Path:
    """Return the folder of the images that come with the package."""
    from internimage.checkpoints.catalog import BUNDLED

    return BUNDLED / "pictures"


def _target(path: Path, class_names: tuple[str, ...]) -> str:
    """Return the class in the name of a bundled image, `fashion_<number>_<class>.png`."""
    written = path.stem.rsplit("_", 1)[1]
    return next(name for name in class_names if re.sub(r"[^a-z0-9]+", "-", name.lower()).startswith(written))
