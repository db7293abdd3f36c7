"""The pipeline every model obeys: image -> preprocess -> backbone -> head -> postprocess -> result.

Read this file first. Each task folder holds these stations under the same file names, in this order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from internimage.data.images.read import ImageInput as ImageInput
from internimage.layers.evaluation_mode import evaluation_mode
from internimage.types import Images

Result = TypeVar("Result")


class TaskModel(nn.Module, ABC, Generic[Result]):
    """A network together with the way into it (images) and out of it (results).

    `forward` is the graph that is exported: tensors in, raw outputs out, whatever the mode. `loss` is its own path.
    `predict` takes a list and gives a list, one result for each image, in the order given.
    """

    task: ClassVar[str]

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
        return self.predict_in_batches(images, lambda part: self.preprocess(images[part]), batch_size=batch_size)

    def predict_in_batches(
        self,
        images: Sequence[ImageInput],
        preprocess: Callable[[slice], Images],
        *,
        batch_size: int,
        predict_batch: Callable[[Images], list[Result]] | None = None,
    ) -> list[Result]:
        """Do what `predict` promises.

        Args:
            images: the images.
            preprocess: reads `images[part]` for a slice, with whatever else belongs to them.
            batch_size: images in one forward pass, at least 1.
            predict_batch: answers a batch, None for the method of this name.
        """
        if isinstance(images, str | PathLike | PIL.Image.Image | np.ndarray | Tensor):
            raise TypeError(f"predict takes a list of images, given one {type(images).__name__}; write predict([...])")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, given {batch_size}")
        answer = predict_batch or self.predict_batch
        results: list[Result] = []
        with evaluation_mode(self):
            for start in range(0, len(images), batch_size):
                results += answer(preprocess(slice(start, start + batch_size)))
        return results

    def predict_batch(self, images: Images) -> list[Result]:
        """Run one preprocessed batch through the network and post-process it; the mode is the caller's."""
        with torch.inference_mode():
            return self.postprocess(self.run(images.to(self.device, self.dtype)), images)
