"""`internimage evaluate`: the measured figures beside the published ones, for every task."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from enum import Enum
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
    Precision,
    PrecisionOption,
    ValueRangeOption,
    note,
    print_fields,
    print_json,
    print_table,
    progress,
    stdout,
)

if TYPE_CHECKING:
    from internimage.classification.report import ClassificationReport
    from internimage.flow import EvaluationOptions, Task

MAX_CLASS_ROWS = 100
# The metrics that papers quote; the others stand below the classes.
QUOTED = ("box_AP", "mask_AP", "box_AP50", "mask_AP50", "mAP", "AP", "MR^-2", "JI", "mIoU", "mAcc", "aAcc")

Rows = Sequence[tuple[str, float | None, float | None]]


class Split(str, Enum):
    """Part of a data set."""

    train = "train"
    val = "val"
    test = "test"


class DetectionMetric(str, Enum):
    """How a detector is measured."""

    coco = "coco"
    lvis = "lvis"
    voc2007 = "voc2007"
    voc2012 = "voc2012"
    openimages = "openimages"
    crowdhuman = "crowdhuman"


class Merge(str, Enum):
    """How the answers of several looks become one."""

    soft_nms = "soft_nms"
    nms = "nms"
    fusion = "fusion"


def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder of a data set, or annotations of objects in the COCO form (JSON)."),
    ],
    split: Annotated[Split, typer.Option("--split", help="Part of the data set.")] = Split.val,
    metric: Annotated[
        DetectionMetric | None,
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
        Merge | None,
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
    device: DeviceOption = "auto",
    dtype: PrecisionOption = Precision.float32,
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
    from internimage import tasks
    from internimage.checkpoints.catalog import info
    from internimage.flow import EvaluationOptions

    logging.getLogger("internimage.evaluation.record_log").setLevel(logging.INFO)  # what is taken up again is said
    predictor = load_predictor(model, device=device, dtype=dtype, backend=backend, value_range=value_range)
    task = tasks.of_model(predictor)
    with progress("pictures", None) as advance:
        options = EvaluationOptions(
            split=split.value,
            batch_size=batch_size,
            workers=workers,
            published=None if Path(model).exists() else info(model).name,
            progress=advance,
            metric=None if metric is None else metric.value,
            images=images,
            multi_scale=multi_scale,
            merge=None if merge is None else merge.value,
            folder=out,
            confusion=confusion,
        )
        _refuse_foreign_options(task, options)
        report = task.evaluate(predictor, data, options)
    if confusion is not None:
        note(f"written: {confusion}")
    for index, reason in report.skipped:
        note(f"left out image {index}: {reason}")
    if out is not None:
        note(f"kept in {out}")
    if as_json:
        print_json({"model": model, "data": str(data), "split": split.value, **report.to_dict()})
        return
    dataset = None if options.published is None else info(options.published).dataset
    if predictor.task == "classification":
        _print_classification(report, model, dataset)
    else:
        _print_figures(report, model, dataset)


# Options that mean something for some tasks only, by their fields.
OF_SOME_TASKS = {
    "metric": "--metric",
    "images": "--pictures",
    "merge": "--merge",
    "multi_scale": "--multi-scale",
    "folder": "--out",
    "confusion": "--confusion",
}


def _refuse_foreign_options(task: Task[Any, Any], options: EvaluationOptions) -> None:
    """Refuse options that mean nothing for a task."""
    from internimage import tasks

    for field, option in OF_SOME_TASKS.items():
        if getattr(options, field) and field not in task.options:
            known = " and ".join(other.name for other in tasks.every() if field in other.options)
            raise typer.BadParameter(f"{option} is for {known}, this model is for {task.name}")
    if options.merge is not None and not options.multi_scale:
        raise typer.BadParameter("--merge needs --multi-scale")


def _print_classification(report: ClassificationReport, model: str, dataset: str | None) -> None:
    print_fields({"pictures": _images(report), **report.fields(dataset or "")}, title=model)
    _print_classes(report.per_class())


def _print_figures(report: Any, model: str, dataset: str | None) -> None:
    """Show the metrics of a detector or a segmentor: those that are quoted, each class, and then all others."""
    print_fields({"pictures": _images(report)}, title=model)
    rows: Rows = report.rows()
    quoted = [row for row in rows if row[0] in QUOTED]
    _print_metrics(quoted, dataset, style="bold")
    _print_classes(report.per_class())
    _print_metrics([row for row in rows if row not in quoted], dataset)


def _print_metrics(rows: Rows, dataset: str | None, *, style: str = "") -> None:
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


def _images(report: Any) -> str:
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
