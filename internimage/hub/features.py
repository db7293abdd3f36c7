"""`internimage.features`: what the backbone of a model sees in images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from internimage.flow import ImageInput, Network, TaskModel
from internimage.layers.evaluation_mode import evaluation_mode
from internimage.types import Features


def features(model: Network, images: Sequence[ImageInput]) -> Features:
    """Return the maps of a model's backbone for images, read as the model reads them.

    Args:
        model: what `internimage.load` or `internimage.create` returned; its mode is restored afterwards.
        images: images, see `TaskModel.predict`; all of them are one batch.

    Returns:
        `Features` with one (N, C_i, H_i, W_i) map for each level of the backbone that the model uses, on the model's
        device. Smaller images are padded to the largest, where the model's preprocessing keeps sizes apart.

    Raises:
        TypeError: `model` is a bare backbone, which does not say how images are read: `model(pixels)` gives its maps.
        ValueError: an image cannot be read.

    Example:
        >>> import numpy as np
        >>> from internimage import load
        >>> image = np.zeros((64, 64, 3), dtype=np.uint8)
        >>> [tuple(level.shape) for level in features(load("internimage_pico_fashion"), [image]).maps]
        [(1, 24, 16, 16), (1, 48, 8, 8), (1, 96, 4, 4), (1, 192, 2, 2)]
    """
    if not isinstance(model, TaskModel):
        raise TypeError(f"a bare {type(model).__name__} does not say how images are read; call model(pixels).maps")
    batch = model.preprocess(images)
    with evaluation_mode(model), torch.inference_mode():
        return model.backbone(batch.to(model.device, model.dtype).pixels)
