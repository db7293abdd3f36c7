"""The JSON document in the header of our files: everything needed to rebuild the model around the weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from internimage.backbones import BackboneConfig
from internimage.errors import clean_name
from internimage.flow import ConfigClass, TaskConfig
from internimage.settings import from_plain

FORMAT_VERSION = 1
HEADER_KEY = "internimage"
MAX_DOCUMENT_BYTES = 16 * 2**20


def to_json(config: TaskConfig | BackboneConfig, info: Mapping[str, object] | None = None) -> str:
    """Write the document of a model as JSON; `info` are free notes, such as measured metrics.

    Raises:
        TypeError: `info` holds something that JSON cannot express.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "task": config.header_task,
        "config": dataclasses.asdict(config),
        "info": dict(info or {}),
    }
    return json.dumps(content, ensure_ascii=False)


def from_json(
    text: str, source: str, configs: Mapping[str, ConfigClass]
) -> tuple[TaskConfig | BackboneConfig, dict[str, object]]:
    """Read a document, checking every field.

    Args:
        text: the document.
        source: what messages call its file.
        configs: the configuration of each "task", see `internimage.tasks.configs`.

    Returns:
        The configuration of the model, and the notes of the writer.

    Raises:
        ValueError: the text is no document of this format or a newer one; the message names `source`.
    """
    if len(text) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"{source}: the description of the model is larger than {MAX_DOCUMENT_BYTES} bytes")
    try:
        content = json.loads(text)
        version, task = content["format_version"], content["task"]
        if version != FORMAT_VERSION:
            raise ValueError(f"format version {version}; this release reads version {FORMAT_VERSION}")
        if task not in configs:
            raise ValueError(f"task {task!r}; this release builds {', '.join(configs)}")
        return _with_clean_names(from_plain(configs[task], content["config"])), content.get("info") or {}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{source}: cannot read the description of the model: {error}") from error


def _with_clean_names(config: TaskConfig | BackboneConfig) -> TaskConfig | BackboneConfig:
    """Take out of the names of the classes what would steer a terminal."""
    if isinstance(config, BackboneConfig) or config.class_names is None:
        return config
    return dataclasses.replace(config, class_names=tuple(map(clean_name, config.class_names)))
