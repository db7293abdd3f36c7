"""The JSON document in the header of our files: everything needed to rebuild the model around the weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from internimage.backbones import BackboneConfig, InternImage
from internimage.classification import Classifier, ClassifierConfig
from internimage.detection import DINO, RCNN, DINOConfig, RCNNConfig
from internimage.errors import clean_name
from internimage.flow import TaskModel
from internimage.segmentation import Segmentor, SegmentorConfig
from internimage.settings import from_plain

FORMAT_VERSION = 1
HEADER_KEY = "internimage"
MAX_DOCUMENT_BYTES = 16 * 2**20

AnyTaskConfig = ClassifierConfig | RCNNConfig | DINOConfig | SegmentorConfig
AnyConfig = AnyTaskConfig | BackboneConfig
AnyModel = Classifier | RCNN | DINO | Segmentor | InternImage
CONFIGS: dict[str, type] = {
    "classification": ClassifierConfig,
    "rcnn_detection": RCNNConfig,
    "dino_detection": DINOConfig,
    "segmentation": SegmentorConfig,
    "backbone": BackboneConfig,
}
MODELS: dict[type, type[AnyModel]] = {
    ClassifierConfig: Classifier,
    RCNNConfig: RCNN,
    DINOConfig: DINO,
    SegmentorConfig: Segmentor,
    BackboneConfig: InternImage,
}


@dataclass(frozen=True)
class Document:
    """What a file of ours says about its weights.

    Args:
        task: one of `CONFIGS`, for example "classification".
        config: the complete configuration of the model.
        info: free notes of the writer, for example measured metrics; JSON types only.
    """

    task: str
    config: AnyConfig
    info: Mapping[str, Any] = field(default_factory=dict)


def config_kind(config: AnyConfig) -> str | None:
    """Return the kind of head of a configuration, None for a bare backbone."""
    if isinstance(config, SegmentorConfig):
        return config.head.kind
    if isinstance(config, RCNNConfig | DINOConfig):
        return config.kind
    return config.head if isinstance(config, ClassifierConfig) else None


def describe(model: AnyModel | TaskModel[Any], info: Mapping[str, Any] | None = None) -> Document:
    """Return the document of a model.

    Raises:
        TypeError: the model is none of this package.
    """
    for task, config in CONFIGS.items():
        if isinstance(model, MODELS[config]):
            return Document(task, model.config, dict(info or {}))
    kinds = " or ".join(kind.__name__ for kind in MODELS.values())
    raise TypeError(f"expected a {kinds}, given {type(model).__name__}")


def to_json(document: Document) -> str:
    """Write a document as JSON.

    Raises:
        TypeError: `info` holds something that JSON cannot express.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "task": document.task,
        "config": dataclasses.asdict(document.config),
        "info": dict(document.info),
    }
    return json.dumps(content, ensure_ascii=False)


def from_json(text: str, source: str) -> Document:
    """Read a document, checking every field.

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
        if task not in CONFIGS:
            raise ValueError(f"task {task!r}; this release builds {', '.join(CONFIGS)}")
        config = _with_clean_names(from_plain(CONFIGS[task], content["config"]))
        return Document(task, config, content.get("info") or {})
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{source}: cannot read the description of the model: {error}") from error


def _with_clean_names(config: AnyConfig) -> AnyConfig:
    """Take out of the names of the classes what would steer a terminal."""
    if isinstance(config, BackboneConfig) or config.class_names is None:
        return config
    return dataclasses.replace(config, class_names=tuple(map(clean_name, config.class_names)))
