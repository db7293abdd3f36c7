"""What an exported file says of itself: the model's configuration, its graph, and how it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from internimage import tasks
from internimage.backbones import BackboneConfig
from internimage.checkpoints.header import from_json, to_json
from internimage.flow import ExportGraph, GraphDescription, TaskConfig
from internimage.settings import from_plain, to_plain


@dataclass(frozen=True)
class Document:
    """What an exported file says of itself.

    Args:
        config: the configuration that rebuilds the model, whose preprocessing and results are the file's.
        description: inputs and outputs of the graph.
        written: how it was written: format, dtype and so on.
    """

    config: TaskConfig | BackboneConfig
    description: GraphDescription
    written: Mapping[str, object]


def to_text(graph: ExportGraph, written: Mapping[str, object]) -> str:
    """Return the document of a graph as JSON; `written` says how it is written, JSON types."""
    return to_json(graph.config, {"graph": to_plain(graph.description), "written": dict(written)})


def from_text(text: str, source: str) -> Document:
    """Read a document, checking every field.

    Args:
        text: the document.
        source: what messages call its file.

    Raises:
        ValueError: the text is no document of an exported file; the message names `source`.
    """
    config, info = from_json(text, source, tasks.configs())
    written = info.get("written")
    if "graph" not in info or not isinstance(written, dict):
        raise ValueError(f"{source} describes a model, but no graph; export it anew with this release")
    try:
        description = from_plain(GraphDescription, info["graph"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: cannot read the description of the graph: {error}") from error
    return Document(config, description, written)
