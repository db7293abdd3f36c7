"""`internimage info`: one checkpoint of the catalog, one weight file, or one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internimage.cli.models import local_state, parameters, to_dict
from internimage.cli.terminal import JsonOption, ModelArgument, print_fields, print_json
from internimage.errors import printable

if TYPE_CHECKING:
    from internimage.checkpoints.catalog import CatalogEntry

SHOWN_NAMES = 8


def info(model: ModelArgument, as_json: JsonOption = False) -> None:
    """Show what is known about one checkpoint: settings, preprocessing, license, published metrics, file.

    A file or a folder is read, not loaded: its architecture, preprocessing, classes, size and SHA-256 are shown.
    """
    from internimage.checkpoints.catalog import info as catalog_row

    if Path(model).exists():
        _tell_file(model, as_json)
        return
    entry = catalog_row(model)
    facts = _facts(entry)
    if as_json:
        print_json({**to_dict(entry), **facts})
        return
    fields: dict[str, object] = {
        "task": entry.task,
        "head": entry.head,
        "method": entry.method,
        "data": entry.dataset,
        "classes": entry.num_classes,
        "input size": entry.input_size,
        "published": ", ".join(f"{name} {value:g}" for name, value in entry.metrics.items()),
        "parameters": parameters(entry, exact=True),
        "GFLOPs": entry.gflops,
        "backbone": entry.backbone,
        **_words(facts),
        "licence": entry.licence,
        "weights": local_state(entry),
        **_files(facts),
        "download": None if entry.source == "bundled" else entry.url,
        "original config": entry.config_path,
        "recipe": entry.recipe,
        "remarks": entry.remarks,
    }
    if not entry.is_built:
        fields["this release"] = "does not build this model yet"
    print_fields(fields, title=entry.name)


def _tell_file(path: str, as_json: bool) -> None:
    """Show what a file or a folder holds."""
    from internimage.hub.inspect import inspect_checkpoint

    facts = inspect_checkpoint(path)
    if as_json:
        print_json(facts)
        return
    names = facts.get("class_names") or ()
    more = f", ... ({len(names) - SHOWN_NAMES} more)" if len(names) > SHOWN_NAMES else ""
    fields = {
        "task": facts["task"],
        "model": facts["model"],
        "classes": facts.get("num_classes"),
        "class names": ", ".join(names[:SHOWN_NAMES]) + more,
        "parameters": f"{facts['parameters']:,}",
        "floating type": ", ".join(facts["dtypes"]),
        **_words(facts),
        **_files(facts),
        **{f"note: {printable(name)}": printable(value) for name, value in facts["notes"].items()},
    }
    print_fields(fields, title=path)


def _facts(entry: CatalogEntry) -> dict[str, Any]:
    """Return settings and preprocessing of a row that this release builds, and the files on this machine."""
    from internimage.checkpoints.local import local_copy

    copy = local_copy(entry)
    if not entry.is_built and copy is None:
        return {}
    from internimage.hub.inspect import describe_config, describe_files, row_config

    facts: dict[str, Any] = {} if copy is None else {"files": describe_files(copy)}
    if entry.is_built:
        described = describe_config(row_config(entry))
        facts |= {"settings": described["backbone"], "preprocessing": described["preprocessing"]}
    return facts


def _words(facts: Mapping[str, Any]) -> dict[str, object]:
    """Return settings and preprocessing as lines of a table."""
    settings = facts.get("settings") or facts.get("backbone") or {}
    preprocessing = dict(facts.get("preprocessing") or {})
    lines = {name: _text(preprocessing.pop(name, None)) for name in ("mean", "std")}
    return {
        **{name.replace("_", " "): _text(value) for name, value in settings.items()},
        "preprocessing": ", ".join(
            f"{name.replace('_', ' ')} {_text(value)}" for name, value in preprocessing.items() if value is not None
        ),
        **lines,
    }


def _text(value: Any) -> str:
    """Return a setting in words; empty where there is none."""
    if isinstance(value, list):
        return ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _files(facts: Mapping[str, Any]) -> dict[str, object]:
    """Return the files as lines of a table."""
    files = facts.get("files") or []
    lines: dict[str, object] = {}
    for number, file in enumerate(files, 1):
        mark = f" {number}" if len(files) > 1 else ""
        lines |= {
            f"file{mark}": file["path"],
            f"size{mark}": f"{file['bytes']:,} bytes",
            f"sha256{mark}": file["sha256"],
        }
    return lines
