"""A checkpoint as it was opened: original names without prefixes, shapes, a way to read the tensors, what is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from internimage.backbones import BackboneConfig
from internimage.flow.config import TaskConfig
from internimage.types import Palette

Settings = Mapping[str, Any]  # as an original configuration or a JSON file nests them


@dataclass(frozen=True)
class Stated:
    """What a foreign file says about its model; our own files hold a whole configuration instead.

    Args:
        settings: original settings: of a classifier, or of a larger model below "model".
        preprocess: fields of a preprocessing configuration.
        class_names: names of the classes.
        palette: colors of the classes.
        is_folder: whether they come from the `config.json` of a Transformers folder.
    """

    settings: Settings | None = None
    preprocess: Settings | None = None
    class_names: tuple[str, ...] | None = None
    palette: Palette | None = None
    is_folder: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """The weights of one model and what their file says about it.

    Args:
        source: what to call it in messages.
        shapes: original name and shape of every tensor of the model; the names in a larger model, such as a detector or
            a segmentor, start with the part they belong to, such as "backbone.", others have no prefix.
        open: returns the tensors by the same names; mapped from the file unless `in_memory`.
        in_memory: whether the tensors may be used as they are; mapped ones are copied, because their file may change.
        is_part: whether the weights are those of a larger model.
        config: the configuration in a file of ours.
        info: the writer's notes in a file of ours, JSON types.
        stated: what any other file says.
    """

    source: str
    shapes: Mapping[str, tuple[int, ...]]
    open: Callable[[], Mapping[str, Tensor]]
    in_memory: bool = False
    is_part: bool = False
    config: TaskConfig | BackboneConfig | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    stated: Stated = Stated()
