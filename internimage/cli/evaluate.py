"""`internimage evaluate`: the measured metric beside the published one."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

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
    print_fields,
    print_json,
    print_table,
    progress,
)

MAX_CLASS_ROWS = 40


class Split(str, Enum):
    """Part of a data set."""

    train = "train"
    val = "val"


def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Folder with class folders, or with the idx files of Fashion-MNIST.")
    ],
    split: Annotated[Split, typer.Option("--split", help="Part of the data set.")] = Split.val,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures in one forward pass.")] = 64,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes that read pictures.")] = 0,
    confusion: Annotated[
        Path | None, typer.Option("--confusion", help="Draw the confusion matrix into this file.", show_default=False)
    ] = None,
    device: DeviceOption = "auto",
    dtype: PrecisionOption = Precision.float32,
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a classifier on a data set.

    The published figure stands beside the measured one. Every picture counts once; those that cannot be read are
    listed.
    """
    if not data.exists():
        raise typer.BadParameter(f"there is no folder {data}", param_hint="DATA")
    from internimage import evaluation, zoo
    from internimage.visualize import draw_confusion
    from internimage.zoo.saving import replacing

    classifier = load_classifier(model, device=device, dtype=dtype, backend=backend)
    entry = None if Path(model).exists() else zoo.info(model)
    published = None if entry is None or "top1" not in entry.metrics else entry.metrics["top1"] / 100
    with progress("pictures", None) as advance:
        report = evaluation.evaluate(
            classifier,
            data,
            split=split.value,
            batch_size=batch_size,
            workers=workers,
            published=published,
            progress=advance,
        )
    for index, reason in report.skipped:
        note(f"left out picture {index}: {reason}")
    if confusion is not None:
        with replacing(confusion) as temporary:
            draw_confusion(report.confusion, report.class_names).save(temporary, "PNG")
        note(f"written: {confusion}")
    if as_json:
        print_json({"model": model, "data": str(data), "split": split.value, **report.to_dict()})
        return
    fields = {
        "pictures": f"{report.num_images}" + (f", {len(report.skipped)} left out" if report.skipped else ""),
        "top-1": f"{report.top1:.2%}",
        "published": None if published is None else f"{published:.2%} on {entry.dataset if entry else ''}",
        "top-5": f"{report.top5:.2%}",
        "loss": f"{report.loss:.4f}",
    }
    print_fields(fields, title=model)
    rows = report.per_class()
    if len(rows) <= MAX_CLASS_ROWS:
        shares = ["" if row["accuracy"] is None else f"{row['accuracy']:.2%}" for row in rows]
        cells = [[row["name"], row["images"], Text(share)] for row, share in zip(rows, shares, strict=True)]
        print_table(["class", "pictures", "right"], cells, right="pictures,right")
