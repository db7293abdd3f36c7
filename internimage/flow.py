"""The pipeline every model obeys: image -> preprocess -> backbone -> head -> postprocess -> result.

Read this file first. Each task folder holds these stations under the same file names, in this order; `Task` is what the
rest of the house knows of such a folder.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypedDict, TypeVar

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from internimage.backbones import BackboneConfig, CompositeInternImage, InternImage
from internimage.data import ImageDataset
from internimage.data.images.normalize import Normalization
from internimage.data.images.read import ImageInput as ImageInput
from internimage.data.parts import Part
from internimage.layers.evaluation_mode import evaluation_mode
from internimage.types import Images

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

Prepared = TypeVar("Prepared")
Result = TypeVar("Result")
ALL_LEVELS = (0, 1, 2, 3)


class TaskConfig(Protocol):
    """What the configurations of all models have: each is a frozen dataclass with everything to rebuild a model."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    header_task: ClassVar[str]  # what the header of our files calls models of this kind

    @property
    def backbone(self) -> BackboneConfig:
        """Architecture of the backbone, or of each one of several."""
        ...

    @property
    def num_classes(self) -> int:
        """Classes that the model tells apart."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """A name for each class, or None."""
        ...

    @property
    def preprocess(self) -> Normalization:
        """How images become pixels."""
        ...

    @property
    def kind(self) -> str:
        """Layout of the parameters: which rules turn their names into the original's."""
        ...

    @property
    def rows(self) -> int:
        """Outputs of the last layer that stand for classes."""
        ...

    @property
    def num_blocks(self) -> int:
        """Blocks of all backbones."""
        ...

    @property
    def num_head_layers(self) -> int:
        """Layers of the head where the settings say how many there are."""
        ...

    def with_classes(self, num_classes: int) -> Self:
        """Return the configuration for another number of classes; names survive where the classes do."""
        ...


class RunOptions(TypedDict, total=False):
    """How a model runs, which no file remembers: see `TaskModel`."""

    activation_checkpointing: bool
    frozen_stages: int
    backend: str


class TaskModel(nn.Module, ABC, Generic[Result]):
    """A network together with the way into it (images) and out of it (results).

    `forward` is the graph that is exported: tensors in, raw outputs out, whatever the mode. `loss` is its own path.
    `predict` takes a list and gives a list, one result for each image, in the order given.

    Args:
        config: architecture, preprocessing and class names.
        out_indices: levels of the backbone whose maps the head reads.
        num_backbones: 1, or 2 for a composite.
        activation_checkpointing: recompute blocks of the backbone in the backward pass.
        frozen_stages: see `InternImage`.
        backend: operator backend, see `internimage.ops.dcnv3`.
    """

    task: ClassVar[str]
    config: TaskConfig
    backbone: InternImage | CompositeInternImage

    def __init__(
        self,
        config: TaskConfig,
        *,
        out_indices: tuple[int, ...] = ALL_LEVELS,
        num_backbones: int = 1,
        activation_checkpointing: bool = False,
        frozen_stages: int = -1,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.config = config
        self.backend = backend
        self.backbone = (InternImage if num_backbones == 1 else CompositeInternImage)(
            config.backbone,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            activation_checkpointing=activation_checkpointing,
            backend=backend,
        )

    @abstractmethod
    def preprocess(self, images: Sequence[ImageInput]) -> Images:
        """Read and normalize images: (N, 3, H, W) float on the CPU with their valid and original sizes."""

    @abstractmethod
    def forward(self, pixels: Tensor, valid_hw: Tensor | None = None) -> Any:
        """Map normalized pixels (N, 3, H, W) to raw outputs; `valid_hw` (N, 2) is the size before padding."""

    @abstractmethod
    def postprocess(self, outputs: Any, images: Images) -> list[Result]:
        """Turn raw outputs into one result for each image, in original-image terms."""

    @abstractmethod
    def loss(self, images: Images, targets: Any) -> dict[str, Tensor]:
        """Return the named scalar losses of a batch; their sum is what training minimizes."""

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the parameters."""
        return next(self.parameters()).dtype

    def run(self, images: Images) -> Any:
        """Call `forward` on a batch that is already on the right device."""
        return self(images.pixels, images.valid_hw)

    def predict(self, images: Sequence[ImageInput], *, batch_size: int = 8) -> list[Result]:
        """Answer for each image: read, run in evaluation mode without gradients, and post-process.

        Several threads may call it on one model, whatever its mode; an image's answer does not depend on the others of
        its batch (but for the last bits of floating-point sums).

        Args:
            images: paths, PIL images, uint8 (H, W, 3) arrays or uint8/float (3, H, W) tensors, RGB.
            batch_size: images in one forward pass, at least 1.

        Returns:
            One result for each image, in the order given.

        Raises:
            TypeError: `images` is one image instead of a list of them.
            ValueError: an image cannot be read; the message names it.
        """
        return self.predict_in_batches(
            images, lambda part: self.preprocess(images[part]), self.predict_batch, batch_size=batch_size
        )

    def predict_in_batches(
        self,
        images: Sequence[ImageInput],
        preprocess: Callable[[slice], Prepared],
        predict_batch: Callable[[Prepared], list[Result]],
        *,
        batch_size: int,
    ) -> list[Result]:
        """Do what `predict` promises.

        Args:
            images: the images.
            preprocess: reads `images[part]` for a slice, with whatever else belongs to them.
            predict_batch: predicts what `preprocess` gave; the mode is the caller's.
            batch_size: images in one forward pass, at least 1.
        """
        if isinstance(images, str | PathLike | PIL.Image.Image | np.ndarray | Tensor):
            raise TypeError(f"predict takes a list of images, given one {type(images).__name__}; write predict([...])")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, given {batch_size}")
        results: list[Result] = []
        with evaluation_mode(self):
            for start in range(0, len(images), batch_size):
                results += predict_batch(preprocess(slice(start, start + batch_size)))
        return results

    def predict_batch(self, images: Images) -> list[Result]:
        """Run one preprocessed batch through the network and post-process it; the mode is the caller's."""
        with torch.inference_mode():
            return self.postprocess(self.run(images.to(self.device, self.dtype)), images)


class Report(Protocol):
    """What an evaluation has found."""

    @property
    def num_images(self) -> int:
        """Images that were measured."""
        ...

    @property
    def skipped(self) -> Sequence[tuple[int, str]]:
        """Index and reason of each image that was left out."""
        ...

    def fields(self, dataset: str) -> Mapping[str, str | None]:
        """Return name and text of the metrics that need no table; `dataset` is what published ones are of."""
        ...

    def rows(self) -> Sequence[tuple[str, float | None, float | None]]:
        """Return (name, measured, published) of the metrics of a table, 0..1; None where there is none."""
        ...

    def per_class(self) -> Sequence[Mapping[str, Any]]:
        """Return the metrics of each class by name."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        ...


Config = TypeVar("Config", bound=TaskConfig)
Model = TypeVar("Model", bound=TaskModel[Any])
ConfigIn = TypeVar("ConfigIn", bound=TaskConfig, contravariant=True)
ModelOut = TypeVar("ModelOut", bound=TaskModel[Any], covariant=True)


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
        published: name of a catalog row -> configuration of its model.
        usual_hw: configuration -> (height, width) of the network's input that the model was made for, in pixels.
        open_data: (path of a data set, part) -> its images and what they show.
        evaluate: (model, data set or its path, options as keywords) -> report; every task takes `split`, `batch_size`,
            `workers`, `folder`, `max_unreadable`, `published` and `progress`, and names its own options.
    """

    name: str
    noun: str
    configs: tuple[type[Config], ...]
    architectures: tuple[str, ...]
    build: Build[Config, Model]
    published: Callable[[str], Config]
    usual_hw: Callable[[Config], tuple[int, int]]
    open_data: Callable[[str | PathLike[str], Part], ImageDataset[Any]]
    evaluate: Callable[..., Report]

    def takes(self, option: str) -> bool:
        """Whether an evaluation of this task can be asked for something."""
        return option in inspect.signature(self.evaluate).parameters
