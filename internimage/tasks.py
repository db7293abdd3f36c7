"""The only list of tasks: each is a folder, and its `task.py` says what the rest of the house may ask of it.

Modules are imported at first use, so that a command of one task does not wait for the others.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from internimage.backbones import BackboneConfig, InternImage
from internimage.backbones.original.names import BACKBONE, Rules
from internimage.checkpoints.checkpoint import KnownModels
from internimage.errors import UnknownName
from internimage.flow import AnyModel, AnyTask, Checkpoint, ConfigClass, Network, RunOptions, Settings, TaskConfig

if TYPE_CHECKING:
    from typing_extensions import Unpack

MODULES = {
    "classification": "internimage.classification.task",
    "detection": "internimage.detection.task",
    "segmentation": "internimage.segmentation.task",
}


def named(name: str) -> AnyTask:
    """Return a task by its name.

    Raises:
        UnknownName: there is no such task.

    Example:
        >>> named("segmentation").noun
        'segmentor'
    """
    if name not in MODULES:
        raise UnknownName("task", name, MODULES)
    return importlib.import_module(MODULES[name]).TASK


def station(name: str, file: str) -> ModuleType | None:
    """Return a module of a task's folder, such as its "training.recipes"; None where the task has none.

    Example:
        >>> station("detection", "training.recipes").__name__
        'internimage.detection.training.recipes'
    """
    module = MODULES[name].rpartition(".")[0]
    for part in file.split("."):
        module += f".{part}"
        if importlib.util.find_spec(module) is None:
            return None
    return importlib.import_module(module)


def every() -> Iterator[AnyTask]:
    """Yield all tasks in the order of the list."""
    return map(named, MODULES)


def of_model(model: AnyModel) -> AnyTask:
    """Return the task of a model."""
    return named(model.task)


def of_config(config: TaskConfig) -> AnyTask:
    """Return the task that a configuration is for.

    Raises:
        TypeError: it is none of a whole model.
    """
    found = next((task for task in every() if type(config) in task.configs), None)
    if found is None:
        kinds = ", ".join(kind.__name__ for kind in configs().values())
        raise TypeError(f"expected a configuration, one of {kinds}; given {type(config).__name__}")
    return found


def build(config: TaskConfig | BackboneConfig, **run: Unpack[RunOptions]) -> Network:
    """Return the fresh model of a configuration, or the bare backbone."""
    return InternImage(config, **run) if isinstance(config, BackboneConfig) else of_config(config).build(config, **run)


def of_architecture(architecture: str) -> AnyTask | None:
    """Return the task whose models `internimage.create` makes under this name, or None."""
    return next((task for task in every() if architecture in task.architectures), None)


def taking(option: str) -> list[str]:
    """Return the names of the tasks whose evaluation can be asked for something.

    Example:
        >>> taking("tta")
        ['detection', 'segmentation']
    """
    return [task.name for task in every() if task.takes(option)]


def configs() -> dict[str, ConfigClass]:
    """Return the classes of all configurations by what the header of a file calls them, bare backbones included."""
    found = {kind.header_task: kind for task in every() for kind in task.configs}
    return {**found, BackboneConfig.header_task: BackboneConfig}


def known() -> KnownModels:
    """Return what reading a file takes from the tasks: configurations, and rules for the names of parameters."""
    rules = {kind: rules for task in every() for kind, rules in task.key_rules.items()}

    def own_kind(keys: Collection[str]) -> str | None:
        return next((kind for task in every() if (kind := task.own_kind(keys)) is not None), None)

    return KnownModels(configs(), rules, own_kind)


def key_rules(config: TaskConfig | BackboneConfig) -> Rules:
    """Return the rules between our names of the parameters of a model, or of a bare backbone, and the original's."""
    return BACKBONE if isinstance(config, BackboneConfig) else of_config(config).key_rules[config.kind]


def recognize(checkpoint: Checkpoint, row: str | None = None, settings: Settings | None = None) -> TaskConfig:
    """Return the configuration of the model in a checkpoint.

    Args:
        checkpoint: an open checkpoint.
        row: the name in the catalog that the file has, or None.
        settings: original settings given by the caller, or None.

    Raises:
        ValueError: it holds no model of any task, or nothing describes it well enough.
    """
    for task in every():
        config = task.recognize(checkpoint, row, settings)
        if config is not None:
            return config
    what = "a bare backbone" if isinstance(checkpoint.config, BackboneConfig) else "a part of a model"
    nouns = ", a ".join(task.noun for task in every())
    raise ValueError(
        f"{checkpoint.source} holds {what}, expected a {nouns}; take its backbone with "
        "create('internimage_t', weights=...)"
    )
