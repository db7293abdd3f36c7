"""`internimage list`: the catalog of published checkpoints, one table for each task, as wide as the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from internimage.cli.terminal import JsonOption, note, print_json, print_table, stdout

if TYPE_CHECKING:
    from internimage.checkpoints.catalog import CatalogEntry

GAP = 2  # blanks between two columns


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Args:
        title: its heading.
        cell: the text of a row.
        rank: columns of a high rank are left out first where the terminal is narrow; 0 always stays.
        right: align to the right.
    """

    title: str
    cell: Callable[[CatalogEntry], str]
    rank: int
    right: bool = False

    def width(self, entries: Iterable[CatalogEntry]) -> int:
        """Characters of the widest cell."""
        return max(len(self.title), *(len(self.cell(entry)) for entry in entries))


def list_models(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Shell pattern such as 'mask_rcnn*', or a part of the name.")
    ] = "*",
    task: Annotated[str, typer.Option("--task", help="Only one task, for example classification.")] = "",
    long: Annotated[bool, typer.Option("--long", help="Show every column, however wide the table gets.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the published checkpoints: what each reached, whether it is on this machine, whether it can be trained.

    A terminal shows as many columns as fit; names are never cut.
    """
    from internimage.checkpoints.catalog import info, list_models

    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    entries = [info(name) for name in list_models(pattern, task=task or None)]
    if not entries:
        raise ValueError(f"no checkpoint matches {pattern!r}; `internimage list` shows them all")
    if as_json:
        print_json([to_dict(entry) for entry in entries])
        return
    shown, doubles = _fold(entries)
    tasks = list(dict.fromkeys(entry.task for entry in shown))
    for one in sorted(tasks, key=lambda one: not any(entry.is_built for entry in shown if entry.task == one)):
        _print_task(one, [entry for entry in shown if entry.task == one], doubles, long)
    note(
        "here: the weights come with this package or are on this machine. "
        "train: `internimage train NAME` knows the recipe. "
        "`internimage info NAME` says more; --long shows all columns."
    )


def _fold(entries: Sequence[CatalogEntry]) -> tuple[list[CatalogEntry], dict[str, str]]:
    """Leave out Transformers folders beside the file with the same weights; also return file name: folder name."""
    from internimage.checkpoints.catalog import find

    files = {entry.name for entry in entries}
    doubles: dict[str, str] = {}
    shown = []
    for entry in entries:
        twin = find(entry.name.removeprefix("hf:")) if entry.source == "huggingface" else None
        if twin is None or twin.name not in files:
            shown.append(entry)
        else:
            doubles[twin.name] = entry.name
    return shown, doubles


def _print_task(task: str, entries: list[CatalogEntry], doubles: dict[str, str], long: bool) -> None:
    """Print the table of one task."""
    title = f"{task.replace('_', ' ')} ({len(entries)})"
    if not any(entry.is_built for entry in entries):
        title += ": not loaded by this release"
    console = stdout()
    columns = _fitting(_columns(task, doubles), entries, None if long else console.width)
    console.print(Text(title, style="bold underline"))
    rows = [[Text(column.cell(entry), "" if entry.is_built else "dim") for column in columns] for entry in entries]
    width = sum(column.width(entries) for column in columns) + GAP * (len(columns) - 1)
    right = ",".join(column.title for column in columns if column.right)
    print_table([column.title for column in columns], rows, right=right, min_width=width)
    console.print()


def _fitting(columns: list[Column], entries: list[CatalogEntry], width: int | None) -> list[Column]:
    """Return the columns that say something and, by rank, fit into `width` characters."""
    told = [column for column in columns if any(column.cell(entry) for entry in entries)]
    left = float("inf") if width is None else width + GAP
    kept = []
    for column in sorted(told, key=lambda column: column.rank):
        needed = column.width(entries) + GAP
        if needed > left and column.rank > 0:
            break
        left -= needed
        kept.append(column)
    return [column for column in told if column in kept]


def _columns(task: str, doubles: dict[str, str]) -> list[Column]:
    """Return all columns of a task's table, from left to right."""
    return [
        Column("name", lambda entry: entry.name, 0),
        Column(_heading(task, 0) or "published", lambda entry: _metric(entry, 0), 1, right=True),
        Column(_heading(task, 1) or "also published", lambda entry: _metric(entry, 1), 6, right=True),
        Column("params", lambda entry: parameters(entry, exact=False), 4, right=True),
        Column("GFLOPs", lambda entry: "" if entry.gflops is None else f"{entry.gflops:g}", 8, right=True),
        Column("input", lambda entry: entry.input_size or "", 5, right=True),
        Column("here", _here, 2),
        Column("train", lambda entry: "yes" if entry.recipe and entry.source != "huggingface" else "", 3),
        Column("data", lambda entry: entry.dataset, 7),
        Column("method", lambda entry: entry.method, 9),
        Column("also in the format of Transformers", lambda entry: doubles.get(entry.name, ""), 10),
    ]


# Headings of columns by the metric that most rows of a task have there.
HEADINGS = {"top1": "top-1", "boxAP": "box AP", "maskAP": "mask AP", "mIoU_ss": "mIoU", "mIoU_ms": "multi-scale"}
# Metrics that need no name in their cell.
_PLAIN = {*HEADINGS, "boxAP_val_ss", "boxAP_minival_ss", "mIoU"}


def _heading(task: str, index: int) -> str | None:
    """Return the heading of a task's metrics at one index of its rows."""
    from internimage.checkpoints.catalog import catalog

    own = [list(entry.metrics)[index : index + 1] for entry in catalog().values() if entry.task == task]
    return next((HEADINGS[name] for names in own for name in names if name in HEADINGS), None)


def _metric(entry: CatalogEntry, index: int) -> str:
    """Return one published metric, with its name where the heading does not say it."""
    metrics = list(entry.metrics.items())
    if index >= len(metrics):
        return ""
    name, value = metrics[index]
    text = f"{value:.1f}" if value == round(value, 1) else f"{value:g}"
    return text if name in _PLAIN else f"{name.removesuffix('_ss')} {text}"


def _here(entry: CatalogEntry) -> str:
    """Whether the weights can be loaded without a download."""
    if entry.source == "unpublished":
        return "none"
    return "" if local_state(entry) == "download" else "yes"


def to_dict(entry: CatalogEntry) -> dict[str, object]:
    """Return a row as JSON types, with what this machine and this release know besides."""
    return {**entry.to_dict(), "is_built": entry.is_built, "local": local_state(entry)}


def parameters(entry: CatalogEntry, *, exact: bool) -> str:
    """Return the number of parameters in words, empty where it is not known."""
    if entry.parameters is None:
        return entry.published_parameters or ""
    return f"{entry.parameters:,}" if exact else f"{entry.parameters / 1e6:.4g}M"


def local_state(entry: CatalogEntry) -> str:
    """Where the weights are now: with this package, in the cache, to be downloaded, or nowhere."""
    from internimage.checkpoints.local import local_copy

    if entry.source == "bundled":
        return "in this package"
    if entry.source == "unpublished":
        return "not published"
    return "on this machine" if local_copy(entry) is not None else "download"
