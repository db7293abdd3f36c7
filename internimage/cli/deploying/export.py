"""`internimage export`: a model to a file of another runtime, verified there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from internimage.cli.predicting.sources import find_sources
from internimage.cli.terminal import JsonOption, ModelArgument, note, print_json, print_table, read_size_hw

if TYPE_CHECKING:
    from internimage.exporting.write import Exported


def export(
    model: ModelArgument,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Where to write; the suffix says the format.", show_default=False),
    ],
    dtype: Annotated[
        Literal["float32", "float16", "int8"], typer.Option("--dtype", help="Type of weights and maps.")
    ] = "float32",
    operators: Annotated[
        Literal["auto", "deform_conv", "grid_sample"],
        typer.Option("--operators", help="What deformable convolutions become; auto: the format's choice."),
    ] = "auto",
    opset: Annotated[
        int | None,
        typer.Option("--opset", help="Version of the ONNX operators, 16 to 23; default: the best.", show_default=False),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, help="Images of a call; default: any number.", show_default=False),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", help="Pixels of the network's input, 224 or 800x1344; default: any.", show_default=False
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option("--image-size", help="Pixels of the images that are resized; default: any.", show_default=False),
    ] = None,
    preprocess: Annotated[
        bool, typer.Option("--preprocess", help="Read uint8 images; resize and normalize inside of the file.")
    ] = False,
    layout: Annotated[Literal["nhwc", "nchw"], typer.Option("--layout", help="Axes of such images.")] = "nhwc",
    postprocess: Annotated[
        bool, typer.Option("--postprocess", help="Give probabilities, boxes and masks, or label maps.")
    ] = False,
    mask_size: Annotated[
        str | None,
        typer.Option("--mask-size", help="Pixels of the canvas for masks of objects.", show_default=False),
    ] = None,
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            "--calibration", help="Images, folders or patterns that set the ranges of int8.", show_default=False
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option("--images", help="Images to verify with; default: those of this package.", show_default=False),
    ] = None,
    max_difference: Annotated[
        float | None,
        typer.Option(
            "--max-difference", min=0, help="Accepted difference; default: 1e-4 in float32.", show_default=False
        ),
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option("--min-agreement", min=0, max=1, help="Accepted agreement; default: 0.995.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model for another runtime, and verify it there.

    The file runs on real images in calls of several sizes, and its outputs are compared with those of torch; one that
    is too far is not kept. FILE.json beside it says names, shapes and units of inputs and outputs.
    """
    from internimage.exporting.formats import format_of
    from internimage.exporting.write import export as export_model
    from internimage.hub.load import load

    format_of(file)  # before the weights are read
    written = export_model(
        load(model),
        file,
        dtype=dtype,
        operators=operators,
        opset=opset,
        batch=batch,
        size_hw=None if size is None else read_size_hw(size),
        image_hw=None if image_size is None else read_size_hw(image_size),
        preprocess=preprocess,
        layout=layout,
        postprocess=postprocess,
        mask_hw=None if mask_size is None else read_size_hw(mask_size),
        calibration=find_sources(calibration or []),
        images=find_sources(images) if images else None,
        max_difference=max_difference,
        min_agreement=min_agreement,
    )
    if as_json:
        print_json({**dataclasses.asdict(written), "path": str(written.path), "description": str(written.description)})
    else:
        _show(written)


def _show(written: Exported) -> None:
    """One line for each call that was compared with torch, and the file."""
    if written.checks:
        rows = [
            (
                ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in check.call.items()),
                f"{check.max_difference:.2e}",
                f"{check.mean_difference:.2e}",
                f"{check.agreement:.2%}",
            )
            for check in written.checks
        ]
        columns = ("inputs", "max difference", "mean difference", "agreement")
        print_table(columns, rows, right=",".join(columns[1:]))
    notes = ", ".join(f"{name} {value}" for name, value in written.notes.items() if name != "format")
    ran = f"built, not run: {written.not_run}" if written.not_run else f"run here by {written.runtime}"
    note(f"{written.format} ({notes}), {written.bytes / 1e6:.1f} MB, {ran}")
    typer.echo(written.path)
