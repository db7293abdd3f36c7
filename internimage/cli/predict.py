"""`internimage predict`: predictions for images, videos and cameras; a broken one does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from internimage.cli.loading import load_predictor
from internimage.cli.predicting.drawings import Drawing
from internimage.cli.predicting.predictions import Predicting, Prediction, print_predictions
from internimage.cli.predicting.sources import find_sources
from internimage.cli.terminal import (
    BackendOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    PrecisionOption,
    ValueRangeOption,
    note,
    progress,
)
from internimage.files import json_text, writing

if TYPE_CHECKING:
    from internimage.flow import AnyTask, PredictionOptions

PREDICTIONS_FILE, RESULTS_FILE = "predictions.jsonl", "results.json"
MAX_TABLE_ROWS = 200
# Objects below are written, as `predict` of the library gives them, but neither drawn nor shown in the table.
SHOWN_SCORE = 0.3

Row = dict[str, Any]


Format = Literal["lines", "coco"]  # JSON lines, or a COCO results file besides


def predict(
    model: ModelArgument,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES",
            help="Images, folders, patterns such as 'holiday/*.jpg', video files, or camera:0.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for predictions.jsonl and drawn images.", show_default=False)
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Classes for each image.")] = 5,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            "--score-threshold",
            min=0.0,
            max=1.0,
            help="Leave out objects below; default: none, those below 0.3 are not drawn and not in the table.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option("--classes", help="Keep objects of these classes only: cat,dog.", show_default=False),
    ] = None,
    masks: Annotated[bool, typer.Option("--masks", help="Write the masks of objects as run lengths.")] = False,
    form: Annotated[
        Format, typer.Option("--format", help="JSON lines, or a COCO results file (results.json) besides.")
    ] = "lines",
    every: Annotated[int, typer.Option("--every", min=1, help="Take each n-th frame of a video.")] = 1,
    max_frames: Annotated[
        int | None, typer.Option("--max-frames", min=1, help="Stop a video or camera then.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images in one forward pass.")] = 8,
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Draw the predictions, in --out.")] = True,
    draw_size: Annotated[
        int | None,
        typer.Option(
            "--draw-size",
            min=1,
            help="Longest side of drawn images in pixels; default: the image's own.",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: PrecisionOption = "float32",
    backend: BackendOption = "auto",
    value_range: ValueRangeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict for images, videos and cameras with a classifier, a detector or a segmentor.

    The predictions are shown as a table, or as JSON lines with --json. With --out, they are also written to
    predictions.jsonl and drawn on the images; a segmentor also writes label maps (PNG), and a video becomes an
    annotated video (MP4). What cannot be read is reported, everything else is predicted, and the exit code is 1.
    """
    sources = find_sources(images)
    if not sources:
        raise typer.BadParameter(f"there is no image in {', '.join(images)}", param_hint="IMAGES")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    elif form == "coco" and not as_json:
        raise typer.BadParameter("a results file needs a folder; give --out or --json", param_hint="--format")
    predictor = load_predictor(model, device=device, dtype=dtype, backend=backend, value_range=value_range)
    from internimage import tasks
    from internimage.flow import PredictionOptions

    task = tasks.of_model(predictor)
    shown_score = SHOWN_SCORE if score_threshold is None else score_threshold
    options = PredictionOptions(
        top_k=top_k,
        shown_score=shown_score,
        score_threshold=score_threshold,
        classes=None if classes is None else tuple(name.strip() for name in classes.split(",") if name.strip()),
        masks=masks,
        coco=form == "coco",
    )
    _refuse_foreign_options(task, options)
    drawing = Drawing(out, sources, draws=draw, score_threshold=shown_score, longest_side=draw_size)
    predicting = Predicting(predictor, task, options, drawing, every=every, max_frames=max_frames)
    shown: list[Prediction] = []
    num_rows = num_failed = 0
    with _lines_into(out) as write, progress("pictures", len(sources)) as advance:
        for prediction in predicting.run(sources, batch_size=batch_size, progress=advance):
            line = json_text(prediction.row, ensure_ascii=False)
            write(line)
            if as_json and form == "lines":
                typer.echo(line)
            elif len(shown) < MAX_TABLE_ROWS:
                shown.append(prediction)
            num_rows += 1
            num_failed += prediction.presented is None
    if form == "coco":
        _write_results(predicting.results, out, as_json=as_json)
    if not as_json:
        print_predictions(shown, num_rows, headings=task.headings, shown_score=shown_score)
    if out is not None:
        _tell(out, drawing, form)
    if num_failed:
        note(f"{num_failed} of {len(sources)} images could not be read")
        raise typer.Exit(1)


# Options that mean something for some tasks only, by their fields.
OF_SOME_TASKS = dict(score_threshold="--score-threshold", classes="--classes", masks="--masks", coco="--format coco")


def _refuse_foreign_options(task: AnyTask, options: PredictionOptions) -> None:
    """Refuse options that mean nothing for a task."""
    from internimage import tasks

    for field, option in OF_SOME_TASKS.items():
        value = getattr(options, field)
        if value is not None and value is not False and field not in task.prediction_options:
            known = " and ".join(f"{other.noun}s" for other in tasks.every() if field in other.prediction_options)
            raise typer.BadParameter(f"{option} is for {known}, this model is for {task.name}")


@contextmanager
def _lines_into(out: Path | None) -> Iterator[Callable[[str], None]]:
    """Write lines to the predictions file; until the last one is there, its name ends with ".part"."""
    if out is None:
        yield lambda line: None
        return
    part = out / f"{PREDICTIONS_FILE}.part"
    with writing(part), part.open("w", encoding="utf-8") as file:
        yield lambda line: print(line, file=file, flush=True)
    part.replace(out / PREDICTIONS_FILE)


def _write_results(entries: Sequence[Row], out: Path | None, *, as_json: bool) -> None:
    """Write a COCO results file, and to stdout where asked for."""
    from internimage.files import replacing

    text = json_text(entries)
    if out is not None:
        with replacing(out / RESULTS_FILE) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if as_json:
        typer.echo(text)


def _tell(out: Path, drawing: Drawing, form: Format) -> None:
    """Say what was written."""
    files = [PREDICTIONS_FILE, *([RESULTS_FILE] if form == "coco" else [])]
    others = sorted(drawing.kinds)
    note(
        f"written: {' and '.join(str(out / name) for name in files)}"
        + (f" and {' and '.join(others)} in {out}" if others else "")
    )
