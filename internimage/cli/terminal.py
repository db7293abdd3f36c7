"""What the commands share: the two streams, progress, JSON, options with the same meaning everywhere."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from internimage.errors import printable
from internimage.files import json_text

if TYPE_CHECKING:
    import torch

# Most characters of a cell, a line or an error.
MAX_SHOWN = 8000
# Width of tables when stdout is a file or a pipe: nothing is cut for want of a terminal.
WIDTH_WITHOUT_TERMINAL = 240
# Seconds over which a bar averages its speed: a batch may take longer than the 30 that are usual.
SPEED_PERIOD = 600.0

Precision = Literal["float32", "float16", "bfloat16", "float64"]  # floating type of weights and pixels


def model_names(incomplete: str) -> list[str]:
    """Complete the name of a model."""
    from internimage.checkpoints.catalog import list_models

    return list_models(f"{incomplete}*")


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name of `internimage list`, a checkpoint file, a Hub folder, or the folder of a training run.",
        autocompletion=model_names,
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="cpu, cuda, cuda:1, mps, or auto: the accelerator when there is one.")
]
PrecisionOption = Annotated[Precision, typer.Option("--dtype", help="Floating type of weights and pixels.")]
BackendOption = Annotated[
    str, typer.Option("--backend", metavar="NAME", help="How the operators run: auto, or a name of `internimage env`.")
]
ValueRangeOption = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--value-range",
        metavar="BLACK WHITE",
        help="Values of black and white in images of more than 8 bits, 0 4095 for 12 bits; default: the model's.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the result as JSON to stdout.")]


def stdout() -> Console:
    """The console of results."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)


def stderr() -> Console:
    """The console of everything else."""
    return Console(file=sys.stderr)


class _StderrHandler(logging.Handler):
    """Writes log lines to what stderr is at that moment, beside progress bars and tables."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        note(self.format(record))


def log_to_stderr(level: int) -> None:
    """Show the log of this package, and of nothing else, from `level` on."""
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("internimage")
    logger.handlers = [handler]
    logger.setLevel(level)


def shown(value: object) -> str:
    """Return text as the terminal may have it: names of files and classes come from anywhere and may hold escapes."""
    return printable(str(value), MAX_SHOWN, keep="\n")


def note(text: str) -> None:
    """Write one line to stderr."""
    stderr().print(shown(text), markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Write a result that a program reads; what is not finite is null."""
    typer.echo(json_text(value, indent=2, ensure_ascii=False))


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: str = "", min_width: int = 0
) -> None:
    """Write a table to stdout.

    Args:
        columns: headings.
        rows: cells; a `Text` keeps its style, everything else is shown as it is.
        right: headings, separated by commas, of the columns that are aligned to the right.
        min_width: characters that the table may take even on a narrower terminal, so that no cell is folded.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        is_number = column in right.split(",")
        table.add_column(column, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(cell) for cell in row))
    console = stdout()
    console.width = max(console.width, min_width)
    console.print(table)


def _cell(value: object) -> Text:
    """Return a cell; a `Text` keeps its style."""
    if isinstance(value, Text):
        return value if shown(value.plain) == value.plain else Text(shown(value.plain), value.style)
    return Text(shown(value))


def print_fields(fields: Mapping[str, object], *, title: str = "") -> None:
    """Write names and values, one pair a line, to stdout; empty values are left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(overflow="fold")
    for name, value in fields.items():
        if value not in (None, ""):
            table.add_row(Text(shown(name), style="bold"), Text(shown(value)))
    if title:
        stdout().print(Text(shown(title), style="bold underline"))
    stdout().print(table)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr while a terminal is there.

    Args:
        what: word in front of the bar.
        total: number of steps; None while it is not known.

    Yields:
        A function to call with (steps done, steps in all).
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # By default rich would lead what is printed to stdout meanwhile, which is the result, to the console of the bar.
    hidden = not sys.stderr.isatty()
    settings: dict[str, Any] = dict(transient=True, redirect_stdout=False, speed_estimate_period=SPEED_PERIOD)
    with Progress(*columns, console=stderr(), disable=hidden, **settings) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def choose_device(text: str) -> torch.device:
    """Return the device that `--device` names.

    Raises:
        typer.BadParameter: no device has this name.
        ValueError: this machine does not have it.
    """
    import torch

    from internimage.launch import launched_processes, local_index

    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    if text == "cuda" and launched_processes() > 1:
        text = f"cuda:{local_index()}"
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise typer.BadParameter(f"{text!r} is no device; give cpu, cuda, cuda:1, mps or auto") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {text} is not here: torch sees {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device mps is not here")
    return device


def choose_dtype(precision: Precision) -> torch.dtype:
    """Return the torch type that `--dtype` names."""
    import torch

    return getattr(torch, precision)


def choose_backend(text: str) -> str:
    """Return the operator backend that `--backend` names.

    Raises:
        typer.BadParameter: no backend has this name.
    """
    from internimage.ops import support_table

    names = ("auto", *dict.fromkeys(row.backend for row in support_table()))
    if text not in names:
        raise typer.BadParameter(f"{text!r} is no backend; give one of {', '.join(names)}")
    return text


def read_size_hw(text: str) -> tuple[int, int]:
    """Read "224" or "800x1344" (height x width).

    Raises:
        typer.BadParameter: it is no size.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise typer.BadParameter(f"{text!r} is no size; give a side such as 224, or height x width such as 800x1344")
    return (int(sides[0]), int(sides[-1]))
