"""The pipeline every model obeys: image -> preprocess -> backbone -> head -> postprocess -> result.

Read this file first. Each task folder holds these stations under the same file names, in this order.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypedDict, TypeVar

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from internimage.backbones import CompositeInternImage, InternImage
from internimage.data.images.read import ImageInput as ImageInput
from internimage.flow.config import TaskConfig
from internimage.layers.backend import set_backend
from internimage.layers.evaluation_mode import evaluation_mode
from internimage.layers.fused import fuse, keep_graphs
from internimage.types import Images

if TYPE_CHECKING:
    from typing_extensions import Self

Prepared = TypeVar("Prepared")
Result = TypeVar("Result", covariant=True)
ALL_LEVELS = (0, 1, 2, 3)


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
    class_layers: ClassVar[re.Pattern[str]]  # names of the layers with one row, or a few, for each class
    class_bias: ClassVar[float] = 0.0  # of these layers where they start afresh on other weights
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

    def fuse(self, *, graphs: int = 0) -> Self:
        """Prepare for inference and return self; the graphs are those of the backbone, see `InternImage.fuse`."""
        fuse(self)
        keep_graphs(self, graphs)
        return self

    def set_backend(self, backend: str) -> Self:
        """Let all operators run on a backend from now on, see `internimage.ops.dcnv3`; return self.

        Raises:
            ValueError: there is no such backend.
        """
        set_backend(self, backend)
        return self

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
        """Predict for each image: read, run in evaluation mode without gradients, and post-process.

        Several threads may call it on one model, whatever its mode; an image's prediction does not depend on the others
        of its batch (but for the last bits of floating-point sums).

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


AnyModel = TaskModel[object]  # of whatever task, whose results only its own folder can read
Network = AnyModel | InternImage  # a model of any task, or a bare backbone
