"""What the rest of the house knows of a task's folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from torch import Tensor

from internimage.backbones import BackboneConfig
from internimage.backbones.choice import Wanted
from internimage.backbones.original.names import Rules
from internimage.flow.checkpoint import Checkpoint, Settings
from internimage.flow.config import TaskConfig
from internimage.flow.evaluation import Report
from internimage.flow.graph import ExportGraph, GraphOptions
from internimage.flow.model import AnyModel, RunOptions
from internimage.flow.prediction import PredictionOptions, Presented

if TYPE_CHECKING:
    from typing_extensions import Unpack

Config = TypeVar("Config", bound=TaskConfig)
Model = TypeVar("Model", bound=AnyModel)
ConfigIn = TypeVar("ConfigIn", bound=TaskConfig, contravariant=True)
ConfigOut = TypeVar("ConfigOut", bound=TaskConfig, covariant=True)
ModelOut = TypeVar("ModelOut", bound=AnyModel, covariant=True)


class Create(Protocol[Config]):
    """Chooses the configuration of the model that the caller of `internimage.create` asks for."""

    def __call__(
        self, wanted: Wanted, *, head: object, preprocess: object, on: Config | None, backbone: BackboneConfig | None
    ) -> Config:
        """Return the configuration.

        Args:
            wanted: what callers may ask of any model.
            head: the head as the caller gave it; the task types it.
            preprocess: the preprocessing as the caller gave it; the task types it.
            on: the model of this task that the weights hold, or None.
            backbone: the backbone that the weights hold, or None without weights.
        """
        ...


class Recognize(Protocol[ConfigOut]):
    """Tells what a checkpoint holds."""

    def __call__(self, checkpoint: Checkpoint, row: str | None, settings: Settings | None) -> ConfigOut | None:
        """Return the configuration of the model in a checkpoint, None if it holds none of this task.

        Args:
            checkpoint: an open checkpoint.
            row: the name in the catalog that the file has, or None.
            settings: original settings given by the caller, or None.

        Raises:
            ValueError: it holds one, but nothing describes it well enough.
        """
        ...


class Build(Protocol[ConfigIn, ModelOut]):
    """Makes the fresh model of a configuration."""

    def __call__(self, config: ConfigIn, **run: Unpack[RunOptions]) -> ModelOut:
        """Return the model, with random weights."""
        ...


@dataclass(frozen=True)
class Task(Generic[Config, Model]):
    """Whatever differs between classification, detection and so on: callables without state, one set for each task.

    `internimage.tasks` lists them all. A new task is a folder with a `task.py` that holds its `TASK`, a line in that
    list, and rows in the catalog.

    Args:
        name: what `TaskModel.task` and the catalog say.
        noun: what a model of this task is called in messages.
        configs: classes of its configurations; their `header_task` tells them apart in files.
        architectures: names that `internimage.create` takes.
        build: configuration -> fresh model.
        create: what a caller asks for -> configuration.
        recognize: open checkpoint -> configuration.
        published: name of a catalog row -> configuration of its model.
        model_name: configuration -> what `internimage info` calls its model.
        key_rules: rules between our names and the original's for each `TaskConfig.kind`.
        own_kind: names of parameters -> the `TaskConfig.kind` of a model of this task, None for others.
        to_original: (configuration, weights by original names) -> content of a file in the original's form.
        to_folder: configuration -> JSON files of a Transformers folder; None for tasks that it has no form for.
        graph: (model, what belongs to it) -> the graph that leaves PyTorch; None for tasks without one.
        usual_hw: configuration -> (height, width) of the network's input that the model was made for, in pixels.
        evaluate: (model, data set or its path, options as keywords) -> report; every task takes `split`, `batch_size`,
            `workers`, `folder`, `max_unreadable`, `published` and `progress`, and names its own options.
        present: (result of `predict`, options, number of the image) -> how it is written and shown.
        headings: of `Presented.value` and `Presented.more` in a table.
        prediction_options: the `PredictionOptions` that this task knows and others may not.
        set_to_work: gives a model with random weights the work of a trained one, before its speed is measured.
        comparable: (model, raw outputs, pixels) -> what two backends must agree on; None for the outputs themselves.
        num_objects: raw outputs -> the number of objects in them, where there are any.
    """

    name: str
    noun: str
    configs: tuple[type[Config], ...]
    architectures: tuple[str, ...]
    build: Build[Config, Model]
    create: Create[Config]
    recognize: Recognize[Config]
    published: Callable[[str], Config]
    model_name: Callable[[Config], str]
    key_rules: Mapping[str, Rules]
    own_kind: Callable[[Collection[str]], str | None]
    to_original: Callable[[Config, Mapping[str, Tensor]], dict[str, Any]]
    usual_hw: Callable[[Config], tuple[int, int]]
    evaluate: Callable[..., Report]
    present: Callable[[Any, PredictionOptions, int], Presented]
    headings: tuple[str, str] = ("probability", "next")
    prediction_options: frozenset[str] = frozenset()
    set_to_work: Callable[[Model], None] | None = None
    comparable: Callable[[Model, Any, Tensor], list[Tensor]] | None = None
    num_objects: Callable[[Any], int] | None = None
    to_folder: Callable[[Config], Mapping[str, Settings]] | None = None
    graph: Callable[[Model, GraphOptions], ExportGraph] | None = None

    def takes(self, option: str) -> bool:
        """Whether an evaluation of this task can be asked for something."""
        return option in inspect.signature(self.evaluate).parameters


# Whichever it is. `Any`, because Python has no type for "some configuration, and the models that belong to it": the
# callables of a task take what others of the same task gave.
AnyTask = Task[Any, Any]
