"""`internimage convert`: between the official files, our safetensors and Hub folders, strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from internimage.cli.terminal import ModelArgument, Precision, choose_dtype


def convert(
    source: ModelArgument,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="File .safetensors (ours) or .pth (official), or a folder (Hub).", show_default=False
        ),
    ],
    dtype: Annotated[
        Precision | None,
        typer.Option("--dtype", help="Floating type to write; default: the source's.", show_default=False),
    ] = None,
    ema: Annotated[
        bool | None,
        typer.Option("--ema/--raw", help="Averaged or raw weights of a training file.", show_default=False),
    ] = None,
) -> None:
    """Convert a checkpoint.

    Official .pth files and safetensors in every direction, for classifiers, detectors and segmentors; Hub folders for
    classifiers. Of a training run, --ema or --raw takes the weights in its newest state. Nothing is left out silently.
    """
    from internimage.hub.convert import convert as convert_model

    written = convert_model(source, target, dtype=None if dtype is None else choose_dtype(dtype), ema=ema)
    typer.echo(written)
