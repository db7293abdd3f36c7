"""`internimage evaluate`: the measured metrics beside the published ones, for every task."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from internimage.cli.data_folder import data_folder
from internimage.cli.loading import load_predictor
from internimage.cli.terminal import (
    BackendOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    PrecisionOption,
    ValueRangeOption,
    note,
    print_fields,
    print_json,
    print_table,
    progress,
    stdout,
)
from internimage.options import Merging, Metric, Part

if TYPE_CHECKING:
    from internimage.flow import AnyModel, Report

MAX_CLASS_ROWS = 100
SPELLED = {"images": "--pictures", "tta": "--multi-scale"}  # options that are not called as in Python

Rows = Sequence[tuple[str, float | None, float | None]]


def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder of a data set, or annotations of objects in the COCO form (JSON)."),
    ],
    split: Annotated[Part, typer.Option("--split", help="Part of the data set.")] = "val",
    metric: Annotated[
        Metric | None,
        typer.Option("--metric", help="How a detector is measured; default: coco.", show_default=False),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--pictures", help="Folder with the images of an annotations file.", show_default=False),
    ] = None,
    multi_scale: Annotated[
        bool,
        typer.Option("--multi-scale", help="Test-time augmentation: several sizes, plain and mirrored."),
    ] = False,
    merge: Annotated[
        Merging | None,
        typer.Option("--merge", help="How augmented detections are merged; default: soft_nms.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder that keeps what was found; a cut run goes on there.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Images in one forward pass.", show_default="64, others 1"),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes that read images.")] = 0,
    confusion: Annotated[
        Path | None,
        typer.Option("--confusion", help="Draw a classifier's confusion matrix into this file.", show_default=False),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            min=1,
            help="Processes of this machine that share the images, one for each GPU.",
            show_default="1",
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: PrecisionOption = "float32",
    backend: BackendOption = "auto",
    value_range: ValueRangeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a classifier, a detector or a segmentor on a data set.

    The published metrics stand beside the measured ones. Every image counts once; those that cannot be read are
    listed.
    """
    if data.suffix.lower() != ".json" or not data.exists():  # the annotations of a detector, read as they are
        data = data_folder(data, "DATA")
    if processes is not None and processes > 1:
        words = [model, str(data), *_words(split=split, metric=metric, pictures=images, merge=merge, out=out)]
        words += _words(multi_scale=multi_scale, batch_size=batch_size, workers=workers, confusion=confusion)
        words += _words(device=device, dtype=dtype, backend=backend, value_range=value_range, json=as_json)
        _run_processes(words, processes, on_cpu=device == "cpu")
        return
    from internimage.checkpoints.catalog import info
    from internimage.hub.evaluation import evaluate as evaluate_model
    from internimage.launch import process_index

    is_first = process_index() == 0  # of processes that share the images, one tells what there is to tell
    if is_first:
        logging.getLogger("internimage.evaluation.record_log").setLevel(logging.INFO)  # what is taken up again is said
    else:
        logging.getLogger("internimage").setLevel(logging.ERROR)
    predictor = load_predictor(model, device=device, dtype=dtype, backend=backend, value_range=value_range)
    entry = None if Path(model).exists() else info(model)
    asked = {"metric": metric, "images": images, "tta": multi_scale, "merge": merge, "confusion": confusion}
    options = {name: value for name, value in asked.items() if value}
    _refuse_foreign_options(predictor, options)
    with progress("pictures", None) if is_first else contextlib.nullcontext() as advance:
        report = evaluate_model(
            predictor,
            data,
            split=split,
            batch_size=batch_size,
            workers=workers,
            folder=out,
            published=None if entry is None else entry.name,
            progress=advance,
            **options,
        )
    if not is_first:
        return
    if confusion is not None:
        note(f"written: {confusion}")
    for index, reason in report.skipped:
        note(f"left out image {index}: {reason}")
    if out is not None:
        note(f"kept in {out}")
    if as_json:
        print_json({"model": model, "data": str(data), "split": split, **report.to_dict()})
    else:
        _print_report(report, title=model, dataset="" if entry is None else entry.dataset)


def _words(**options: object) -> list[str]:
    """Return options as words of a command line, without those that are not given."""
    words: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        values = () if value is True else value if isinstance(value, tuple) else (value,)
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words


def _run_processes(words: Sequence[str], processes: int, *, on_cpu: bool) -> None:
    """Measure in several processes, of which the first one tells the result."""
    from internimage.launch import launched_processes, run_processes

    if launched_processes() > 1:
        raise typer.BadParameter("torchrun or accelerate launch has started the processes", param_hint="--processes")
    if code := run_processes(["evaluate", *words], processes, on_cpu=on_cpu):
        raise typer.Exit(code)


def _print_report(report: Report, *, title: str, dataset: str) -> None:
    """Show what was measured, with the published metrics of a data set beside it."""
    print_fields({"pictures": _images(report), **report.fields(dataset)}, title=title)
    quoted = [row for row in report.rows() if row[0] in report.quoted]  # the others stand below the classes
    _print_metrics(quoted, dataset, style="bold")
    _print_classes(report.per_class())
    _print_metrics([row for row in report.rows() if row not in quoted], dataset)


def _refuse_foreign_options(model: AnyModel, options: Mapping[str, object]) -> None:
    """Refuse options that mean nothing for a task."""
    from internimage import tasks

    task = tasks.of_model(model)
    for name in options:
        if not task.takes(name):
            known = " and ".join(tasks.taking(name))
            raise typer.BadParameter(f"{SPELLED.get(name, f'--{name}')} is for {known}, this model is for {task.name}")
    if "merge" in options and "tta" not in options:
        raise typer.BadParameter("--merge needs --multi-scale")


def _print_metrics(rows: Rows, dataset: str, *, style: str = "") -> None:
    """Show names and values, beside the published ones where there are any."""
    if not rows:
        return
    has_published = any(published is not None for _, _, published in rows)
    heading = f"published on {dataset}" if has_published else "published"
    cells = [
        [Text(cell, style) for cell in (name, _percent(measured), _percent(published))]
        for name, measured, published in rows
    ]
    columns = ["metric", "measured", heading]
    if has_published:
        print_table(columns, cells, right=f"measured,{heading}")
    else:
        print_table(columns[:2], [row[:2] for row in cells], right="measured")
    stdout().print()


def _images(report: Report) -> str:
    return f"{report.num_images}" + (f", {len(report.skipped)} left out" if report.skipped else "")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _print_classes(rows: Sequence[Mapping[str, Any]]) -> None:
    """Show one line for each class, where there are not too many: its name, its numbers and its shares."""
    if not 0 < len(rows) <= MAX_CLASS_ROWS:
        return
    names = [name for name in rows[0] if name != "name"]
    counts = [name for name in names if all(isinstance(row[name], int) for row in rows)]
    cells = [[row["name"], *(row[name] if name in counts else _percent(row[name]) for name in names)] for row in rows]
    print_table(["class", *names], cells, right=",".join(names))
    stdout().print()
