"""`internimage demo`: the bundled model classifies the bundled pictures, without a network."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from internimage.cli.loading import load_classifier
from internimage.cli.terminal import (
    BackendOption,
    DeviceOption,
    JsonOption,
    Precision,
    note,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from internimage.types import Classification

MODEL = "internimage_pico_fashion"
SHEET_FILE, ANSWERS_FILE = "contact_sheet.png", "predictions.json"


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the contact sheet and the answers.")] = Path(
        "internimage_demo"
    ),
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """See it work: the bundled model classifies bundled pictures.

    Needs no network. Shows a table, and writes a contact sheet and a JSON file.
    """
    from internimage.visualize import contact_sheet
    from internimage.zoo.catalog import BUNDLED
    from internimage.zoo.saving import replacing

    paths = sorted((BUNDLED / "pictures").glob("fashion_*.png"))
    classifier = load_classifier(MODEL, device=device, dtype=Precision.float32, backend=backend)
    names = classifier.config.class_names or ()
    truths = [_truth(path, names) for path in paths]
    started = time.perf_counter()
    results = classifier.predict(list(paths))
    seconds = time.perf_counter() - started
    num_right = sum(result.name == truth for result, truth in zip(results, truths, strict=True))
    heading = f"{MODEL}: {num_right} of {len(paths)} right"
    with replacing(out / SHEET_FILE) as temporary:
        contact_sheet(results, paths, truths=truths, heading=heading).save(temporary, "PNG")
    rows = [
        {"picture": path.name, "truth": truth, **result.to_dict(3)}
        for path, truth, result in zip(paths, truths, results, strict=True)
    ]
    summary = {"model": MODEL, "right": num_right, "pictures": rows, "contact_sheet": str(out / SHEET_FILE)}
    with replacing(out / ANSWERS_FILE) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print_json(summary)
    else:
        _print_answers(results, truths, paths)
    note(f"{heading}, {seconds:.2f} s on {classifier.device}; look at {out / SHEET_FILE}")


def _truth(path: Path, class_names: tuple[str, ...]) -> str:
    """Return the class in the name of a bundled picture, `fashion_<number>_<class>.png`."""
    written = path.stem.rsplit("_", 1)[1]
    return next(name for name in class_names if re.sub(r"[^a-z0-9]+", "-", name.lower()).startswith(written))


def _print_answers(results: list[Classification], truths: list[str], paths: list[Path]) -> None:
    cells: list[list[Any]] = []
    for result, truth, path in zip(results, truths, paths, strict=True):
        style = "green" if result.name == truth else "red"
        cells.append([path.name, truth, Text(result.name, style), f"{result.score:.1%}"])
    print_table(["picture", "truth", "answer", "probability"], cells, right="probability")
