"""`internimage predict`: answers for files, folders and patterns; a broken picture does not stop the others."""

from __future__ import annotations

import glob
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from internimage.cli.loading import load_classifier
from internimage.cli.terminal import (
    BackendOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    Precision,
    PrecisionOption,
    note,
    print_table,
    progress,
)

if TYPE_CHECKING:
    from internimage.classification import Classifier

PREDICTIONS_FILE = "predictions.jsonl"
MAX_TABLE_ROWS = 200
# Good enough to read small text, a tenth of the bytes of a PNG.
JPEG_OPTIONS = {"quality": 92, "subsampling": 0}


def predict(
    model: ModelArgument,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES", help="Files, folders and patterns such as 'holiday/*.jpg'.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for predictions.jsonl and drawn pictures.", show_default=False)
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Answers for each picture.")] = 5,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures in one forward pass.")] = 8,
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Draw the answers on the pictures, in --out.")] = True,
    device: DeviceOption = "auto",
    dtype: PrecisionOption = Precision.float32,
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Classify pictures: files, folders or patterns.

    The answers are shown as a table, or as JSON lines with --json. With --out, they are also written to
    predictions.jsonl and drawn on the pictures. A picture that cannot be read is reported, the others are answered, and
    the exit code is 1.
    """
    paths = find_pictures(images)
    if not paths:
        raise typer.BadParameter(f"there is no picture in {', '.join(images)}", param_hint="IMAGES")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    classifier = load_classifier(model, device=device, dtype=dtype, backend=backend)
    shown: list[dict[str, Any]] = []
    num_failed = 0
    save_drawn = None if out is None or not draw else _drawing_into(out, sources=paths)
    with _lines_into(out) as write, progress("pictures", len(paths)) as advance:
        for start in range(0, len(paths), batch_size):
            part = paths[start : start + batch_size]
            for row in _answers(classifier, part, top_k=top_k, save_drawn=save_drawn):
                line = json.dumps(row, ensure_ascii=False)
                write(line)
                if as_json:
                    typer.echo(line)
                elif len(shown) < MAX_TABLE_ROWS:
                    shown.append(row)
                num_failed += "error" in row
            advance(start + len(part), len(paths))
    if not as_json:
        _print_answers(shown, len(paths))
    if out is not None:
        note(f"written: {out / PREDICTIONS_FILE}" + (f" and drawn pictures in {out}" if draw else ""))
    if num_failed:
        note(f"{num_failed} of {len(paths)} pictures could not be read")
        raise typer.Exit(1)


def find_pictures(texts: Sequence[str]) -> list[Path]:
    """Return the picture files that arguments name, each once, in order.

    A file stands for itself, whatever its suffix; a folder for the pictures in and below it; a pattern for what it
    matches. What does not exist is kept, so that it is reported beside the others.
    """
    from internimage.data.image_folder import PICTURE_SUFFIXES

    found: dict[Path, None] = {}
    for text in texts:
        path = Path(text)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)
            found |= dict.fromkeys(file for file in inside if file.is_file() and not file.name.startswith("."))
        elif not path.exists() and glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - takes absolute patterns, too
            found |= dict.fromkeys(Path(name) for name in matches)
        else:
            found[path] = None
    return list(found)


def _answers(
    classifier: Classifier,
    paths: Sequence[Path],
    *,
    top_k: int,
    save_drawn: Callable[[Path, Any, Any], Path] | None,
) -> Iterator[dict[str, Any]]:
    """Answer for one batch of files; a row for each, with "error" for those that cannot be read."""
    from internimage.data.pictures import BadPicture, read_picture

    errors: dict[Path, str] = {}
    pictures = {}
    for path in paths:
        try:
            pictures[path] = read_picture(path)
        except BadPicture as error:
            errors[path] = str(error)
            note(f"error: {error}")
    results = dict(zip(pictures, classifier.predict(list(pictures.values()), batch_size=len(paths)), strict=True))
    for path in paths:
        if path in errors:
            yield {"image": str(path), "error": errors[path]}
            continue
        height, width = results[path].original_hw
        row = {"image": str(path), "height": height, "width": width, **results[path].to_dict(top_k)}
        if save_drawn is not None:
            row["drawn"] = str(save_drawn(path, results[path], pictures[path]))
        yield row


@contextmanager
def _lines_into(out: Path | None) -> Iterator[Callable[[str], None]]:
    """Write lines to the predictions file; until the last one is there, its name ends with ".part"."""
    if out is None:
        yield lambda line: None
        return
    part = out / f"{PREDICTIONS_FILE}.part"
    with part.open("w", encoding="utf-8") as file:
        yield lambda line: print(line, file=file, flush=True)
    part.replace(out / PREDICTIONS_FILE)


def _drawing_into(out: Path, *, sources: Sequence[Path]) -> Callable[[Path, Any, Any], Path]:
    """Return a function that draws a result and saves it under a name of its own, never over a source."""
    from internimage.visualize import draw
    from internimage.zoo.saving import replacing

    taken = {path.resolve() for path in sources}

    def save(path: Path, result: Any, picture: Any) -> Path:
        names = (f"{path.stem}{'' if number == 1 else f'_{number}'}.jpg" for number in itertools.count(1))
        target = next(out / name for name in names if (out / name).resolve() not in taken)
        taken.add(target.resolve())
        with replacing(target) as temporary:
            draw(result, picture).save(temporary, "JPEG", **JPEG_OPTIONS)
        return target

    return save


def _print_answers(rows: Sequence[dict[str, Any]], total: int) -> None:
    """Show the answers as a table: the best one, and up to two more."""
    cells = []
    for row in rows:
        if "error" in row:
            cells.append([row["image"], Text("cannot be read", "red"), "", ""])
            continue
        best, *others = row["top"][:3]
        rest = ", ".join(f"{other['name']} {other['score']:.1%}" for other in others)
        cells.append([row["image"], Text(best["name"], "bold"), f"{best['score']:.1%}", Text(rest, "dim")])
    print_table(["picture", "answer", "probability", "next"], cells, right="probability")
    if total > len(rows):
        note(f"the first {len(rows)} of {total} answers are shown; --out or --json gives them all")
