"""`internimage evaluate`: the measured figures beside the published ones, for every task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    from internimage.checkpoints.catalog import CatalogEntry
    from internimage.classification.evaluate import ClassificationReport
    from internimage.flow import TaskModel

MAX_CLASS_ROWS = 100
CLASSIFIER_BATCH = 64
PROGRESS_FILE = "progress.json"
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


@dataclass(frozen=True)
class Request:
    """What the user asks of an evaluation, whatever the task."""

    model: TaskModel[Any]
    entry: CatalogEntry | None
    data: Path
    split: str
    batch_size: int | None
    workers: int
    metric: str | None
    images: Path | None
    multi_scale: bool
    merge: str | None
    out: Path | None
    confusion: Path | None
    progress: Callable[[int, int], None]


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
    from internimage.checkpoints.catalog import info

    logging.getLogger("internimage.evaluation.identity").setLevel(logging.INFO)  # what is taken up again is said
    predictor = load_predictor(model, device=device, dtype=dtype, backend=backend, value_range=value_range)
    with progress("pictures", None) as advance:
        request = Request(
            predictor,
            None if Path(model).exists() else info(model),
            data,
            split.value,
            batch_size,
            workers,
            None if metric is None else metric.value,
            images,
            multi_scale,
            None if merge is None else merge.value,
            out,
            confusion,
            advance,
        )
        _refuse_foreign_options(request)
        report = MEASURES[predictor.task](request)
    for index, reason in report.skipped:
        note(f"left out image {index}: {reason}")
    if out is not None:
        note(f"kept in {out}")
    if as_json:
        print_json({"model": model, "data": str(data), "split": split.value, **report.to_dict()})
        return
    dataset = None if request.entry is None else request.entry.dataset
    if predictor.task == "classification":
        _print_classification(report, model, dataset)
    else:
        _print_figures(report, model, dataset)


def _refuse_foreign_options(request: Request) -> None:
    """Refuse options that mean nothing for a task."""
    task = request.model.task
    options: Mapping[str, tuple[bool, tuple[str, ...]]] = {
        "--metric": (request.metric is not None, ("detection",)),
        "--pictures": (request.images is not None, ("detection",)),
        "--merge": (request.merge is not None, ("detection",)),
        "--multi-scale": (request.multi_scale, ("detection", "segmentation")),
        "--out": (request.out is not None, ("detection", "segmentation")),
        "--confusion": (request.confusion is not None, ("classification",)),
    }
    for option, (is_given, tasks) in options.items():
        if is_given and task not in tasks:
            raise typer.BadParameter(f"{option} is for {' and '.join(tasks)}, this model is for {task}")
    if request.merge is not None and not request.multi_scale:
        raise typer.BadParameter("--merge needs --multi-scale")


def _measure_classifier(request: Request) -> Any:
    from internimage.classification import Classifier
    from internimage.classification.evaluate import evaluate as measure
    from internimage.files import replacing
    from internimage.visualize import draw_confusion

    assert isinstance(request.model, Classifier)
    metrics = {} if request.entry is None else request.entry.metrics
    report = measure(
        request.model,
        request.data,
        split=request.split,  # type: ignore[arg-type]  # the command line has checked it
        batch_size=request.batch_size or CLASSIFIER_BATCH,
        workers=request.workers,
        published=metrics["top1"] / 100 if "top1" in metrics else None,
        progress=request.progress,
    )
    if request.confusion is not None:
        with replacing(request.confusion) as temporary:
            draw_confusion(report.confusion, report.class_names).save(temporary, "PNG")
        note(f"written: {request.confusion}")
    return report


def _measure_detector(request: Request) -> Any:
    from dataclasses import replace

    from internimage.detection import Detector
    from internimage.detection.evaluate import evaluate_detection
    from internimage.detection.report import published_figures
    from internimage.detection.tta import usual_scales

    assert isinstance(request.model, Detector)
    metric: Any = request.metric or "coco"
    looks = usual_scales(request.model) if request.multi_scale else None
    if looks is not None and request.merge is not None:
        looks = replace(looks, method=request.merge)
    is_minival = "minival" in request.data.name
    published = (
        {}
        if request.entry is None
        else published_figures(request.entry, metric, several_looks=request.multi_scale, lvis_minival=is_minival)
    )
    return evaluate_detection(
        request.model,
        request.data,
        split=request.split,  # type: ignore[arg-type]  # the command line has checked it
        images=request.images,
        metric=metric,
        batch_size=request.batch_size or 1,
        workers=request.workers,
        looks=looks,
        folder=request.out,
        published=published,
        progress=request.progress,
    )


def _measure_segmentor(request: Request) -> Any:
    from internimage.segmentation import Segmentor
    from internimage.segmentation.evaluate import evaluate_segmentation
    from internimage.segmentation.report import published_miou
    from internimage.segmentation.tta import SINGLE_SCALE, MultiScale, published_scales

    assert isinstance(request.model, Segmentor)
    entry = request.entry
    several = MultiScale() if entry is None else published_scales(entry)
    return evaluate_segmentation(
        request.model,
        request.data,
        split=request.split,
        looks=several if request.multi_scale else SINGLE_SCALE,
        batch_size=request.batch_size or 1,
        workers=request.workers,
        published=None if entry is None else published_miou(entry, multi_scale=request.multi_scale),
        progress_file=None if request.out is None else request.out / PROGRESS_FILE,
        progress=request.progress,
    )


MEASURES: dict[str, Callable[[Request], Any]] = {
    "classification": _measure_classifier,
    "detection": _measure_detector,
    "segmentation": _measure_segmentor,
}


def _print_classification(report: ClassificationReport, model: str, dataset: str | None) -> None:
    from internimage.classification.evaluate import TOP_K

    published = report.published
    num_known = len(report.class_names) + len(report.absent_classes)
    fields = {
        "pictures": _images(report),
        "top-1": f"{report.top1:.2%}",
        "published": None if published is None else f"{published:.2%} on {dataset or ''}",
        "top-5": f"{report.top5:.2%}" if num_known > TOP_K else None,  # else always 100 %
        "loss": f"{report.loss:.4f}",
    }
    print_fields(fields, title=model)
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
