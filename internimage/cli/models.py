"""`internimage list` and `internimage info`: the catalog of published checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from internimage.cli.terminal import JsonOption, ModelArgument, print_fields, print_json, print_table

if TYPE_CHECKING:
    from internimage.zoo import CatalogEntry


def list_models(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Shell pattern such as 'mask_rcnn*', or a part of the name.")
    ] = "*",
    task: Annotated[str, typer.Option("--task", help="Only one task, for example classification.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List the published checkpoints."""
    from internimage import zoo

    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    entries = [zoo.info(name) for name in zoo.list_models(pattern, task=task or None)]
    if not entries:
        raise ValueError(f"no checkpoint matches {pattern!r}; `internimage list` shows them all")
    if as_json:
        print_json([_to_dict(entry) for entry in entries])
        return
    columns = ["name", "task", "data", "published", "parameters", "GFLOPs", "weights"]
    print_table(columns, [_row(entry) for entry in entries], right="parameters,GFLOPs")


def info(model: ModelArgument, as_json: JsonOption = False) -> None:
    """Show everything the catalog knows about one checkpoint."""
    from internimage import zoo

    entry = zoo.info(model)
    if as_json:
        print_json(_to_dict(entry))
        return
    fields: dict[str, object] = {
        "task": entry.task,
        "backbone": entry.backbone,
        "head": entry.head,
        "method": entry.method,
        "data": entry.dataset,
        "classes": entry.num_classes,
        "input size": entry.input_size,
        "published": _metrics(entry),
        "parameters": _parameters(entry, exact=True),
        "GFLOPs": entry.gflops,
        "licence": entry.licence,
        "weights": _local_state(entry),
        "download": entry.url,
        "original config": entry.config_path,
        "remarks": entry.remarks,
    }
    if not entry.is_built:
        fields["this release"] = "does not build this model yet"
    print_fields(fields, title=entry.name)


def _to_dict(entry: CatalogEntry) -> dict[str, object]:
    return {**entry.to_dict(), "is_built": entry.is_built, "local": _local_state(entry)}


def _row(entry: CatalogEntry) -> list[object]:
    style = "" if entry.is_built else "dim"
    cells = (
        entry.name,
        entry.task,
        entry.dataset,
        _metrics(entry),
        _parameters(entry, exact=False),
        "" if entry.gflops is None else f"{entry.gflops:g}",
        _local_state(entry) if entry.is_built else "later release",
    )
    return [Text(cell, style) for cell in cells]


def _metrics(entry: CatalogEntry) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in entry.metrics.items())


def _parameters(entry: CatalogEntry, *, exact: bool) -> str:
    if entry.parameters is None:
        return entry.published_parameters or ""
    return f"{entry.parameters:,}" if exact else f"{entry.parameters / 1e6:.4g}M"


def _local_state(entry: CatalogEntry) -> str:
    """Where the weights are now: with this package, in the cache, to be downloaded, or nowhere."""
    from internimage.zoo.download import local_copy

    if entry.source == "bundled":
        return "in this package"
    if entry.source == "unpublished":
        return "not published"
    return "on this machine" if local_copy(entry) is not None else "download"
