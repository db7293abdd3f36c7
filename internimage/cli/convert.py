"""`internimage convert`: between the official files, our safetensors and Hub folders, strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from internimage.cli.terminal import ModelArgument, note


def convert(
    source: ModelArgument,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="File .safetensors (ours) or .pth (official), or a folder (Hub).", show_default=False
        ),
    ],
) -> None:
    """Convert a checkpoint.

    Official .pth files, safetensors and Hub folders, in every direction; nothing is left out silently.
    """
    from internimage import zoo

    note(f"written: {zoo.convert(source, target)}")
