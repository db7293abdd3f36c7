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

from internimage.cli.loading import load_predictor
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
    from internimage.flow import TaskModel

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
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Classes for each picture.")] = 5,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures in one forward pass.")] = 8,
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Draw the answers on the pictures, in --out.")] = True,
    device: DeviceOption = "auto",
    dtype: PrecisionOption = Precision.float32,
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Answer for pictures with a classifier or a segmentor: files, folders or patterns.

    The answers are shown as a table, or as JSON lines with --json. With --out, they are also written to
    predictions.jsonl and drawn on the pictures; a segmentor also writes label maps (PNG). A picture that cannot be read
    is reported, the others are answered, and the exit code is 1.
    """
    paths = find_pictures(images)
    if not paths:
        raise typer.BadParameter(f"there is no picture in {', '.join(images)}", param_hint="IMAGES")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    predictor = load_predictor(model, device=device, dtype=dtype, backend=backend)
    shown: list[dict[str, Any]] = []
    num_failed = 0
    save = None if out is None else _saving_into(out, sources=paths, draws=draw)
    with _lines_into(out) as write, progress("pictures", len(paths)) as advance:
        for start in range(0, len(paths), batch_size):
            part = paths[start : start + batch_size]
            for row in _answers(predictor, part, top_k=top_k, save=save):
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
        pictures = (["drawn pictures"] if draw else []) + (["label maps"] if predictor.task == "segmentation" else [])
        note(f"written: {out / PREDICTIONS_FILE}" + (f" and {' and '.join(pictures)} in {out}" if pictures else ""))
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
    predictor: TaskModel[Any],
    paths: Sequence[Path],
    *,
    top_k: int,
    save: Callable[[Path, Any, Any], dict[str, str]] | None,
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
    results = dict(zip(pictures, predictor.predict(list(pictures.values()), batch_size=len(paths)), strict=True))
    for path in paths:
        if path in errors:
            yield {"image": str(path), "error": errors[path]}
            continue
        height, width = results[path].original_hw
        row = {"image": str(path), "height": height, "width": width, **results[path].to_dict(top_k)}
        yield row if save is None else {**row, **save(path, results[path], pictures[path])}


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


def _saving_into(out: Path, *, sources: Sequence[Path], draws: bool) -> Callable[[Path, Any, Any], dict[str, str]]:
    """Return a function that saves what a result looks like and tells the paths.

    Each picture gets names of its own, never those of a source.
    """
    from internimage.types import Segmentation
    from internimage.visualize import draw
    from internimage.zoo.saving import replacing

    taken = {path.resolve() for path in sources}

    def free(stem: str, suffix: str) -> Path:
        names = (f"{stem}{'' if number == 1 else f'_{number}'}{suffix}" for number in itertools.count(1))
        target = next(out / name for name in names if (out / name).resolve() not in taken)
        taken.add(target.resolve())
        return target

    def save(path: Path, result: Any, picture: Any) -> dict[str, str]:
        written: dict[str, str] = {}
        if isinstance(result, Segmentation):
            target = free(path.stem, "_labels.png")
            with replacing(target) as temporary:
                result.to_image().save(temporary, "PNG")
            written["label_map"] = str(target)
        if draws:
            target = free(path.stem, ".jpg")
            with replacing(target) as temporary:
                draw(result, picture).save(temporary, "JPEG", **JPEG_OPTIONS)
            written["drawn"] = str(target)
        return written

    return save


def _print_answers(rows: Sequence[dict[str, Any]], total: int) -> None:
    """Show the answers as a table: the best one, and up to two more."""
    cells = []
    for row in rows:
        if "error" in row:
            cells.append([row["image"], Text("cannot be read", "red"), "", ""])
            continue
        value = "score" if "top" in row else "share"
        best, *others = (row["top"] if "top" in row else row["classes"])[:3]
        rest = ", ".join(f"{other['name']} {other[value]:.1%}" for other in others)
        cells.append([row["image"], Text(best["name"], "bold"), f"{best[value]:.1%}", Text(rest, "dim")])
    share = "area" if any("classes" in row for row in rows) else "probability"
    print_table(["picture", "answer", share, "next"], cells, right=share)
    if total > len(rows):
        note(f"the first {len(rows)} of {total} answers are shown; --out or --json gives them all")
