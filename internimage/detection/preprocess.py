"""From images to pixels: keep the aspect ratio, normalize, pad at the right and the bottom.

Shape legend: N images, H W size of the padded batch in pixels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from internimage.data.images.normalize import Normalization
from internimage.data.images.normalize import normalize as normalize_pixels
from internimage.data.images.raster import Image, original_size, pixels_of
from internimage.data.images.read import read_image
from internimage.data.images.resize import keep_ratio_size, resize_bilinear
from internimage.flow import ImageInput
from internimage.moved import renamed
from internimage.ranges import Range
from internimage.types import Images

IMAGENET_MEAN_255 = (123.675, 116.28, 103.53)
IMAGENET_STD_255 = (58.395, 57.12, 57.375)
__getattr__ = renamed(__name__, {"PreprocessConfig": __name__})


@dataclass(frozen=True)
class DetectionPreprocess(Normalization):
    """How a detector reads an image.

    Args:
        shorter_side: the image is enlarged or reduced until its shorter side has this many pixels...
        longer_side: ... or its longer side this many, whatever comes first.
        divisor: the padded batch is a multiple of this, in pixels.
        mean: mean of each channel of pixels in 0..255, for RGB those of ImageNet; as many as channels are read.
        std: standard deviation of each channel of pixels in 0..255.
        value_range: values of black and white in images of more than 8 bits, see `data.images.raster.Reading`.
    """

    shorter_side: Annotated[int, Range(1, 16_384)] = 800
    longer_side: Annotated[int, Range(1, 1_000_000)] = 1333
    divisor: Annotated[int, Range(1, 4096)] = 32
    mean: tuple[float, ...] = IMAGENET_MEAN_255
    std: tuple[float, ...] = IMAGENET_STD_255
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shorter_side > self.longer_side:
            raise ValueError(
                f"expected 1 <= shorter_side <= longer_side, given {self.shorter_side} and {self.longer_side}"
            )

    def network_hw(self, original_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size that an image is resized to, before the padding."""
        return keep_ratio_size(original_hw, (self.longer_side, self.shorter_side))


def prepare(images: Sequence[ImageInput], config: DetectionPreprocess) -> Images:
    """Read (see `read_image`), resize, normalize and pad images: (N, C, H, W) float32 on the CPU, channels last.

    Raises:
        BadImage: a ValueError; an image cannot be read.
    """
    read = [read_image(source, config.reading, network_hw=config.network_hw) for source in images]
    return batch([fit(image, config) for image in read], [original_size(image) for image in read], config)


def batch(arrays: Sequence[Tensor], original_hw: Sequence[tuple[int, int]], config: DetectionPreprocess) -> Images:
    """Normalize and pad uint8 (h, w, C) arrays that have their final size already."""
    sizes = [array.shape[:2] for array in arrays]
    most = (max((size[axis] for size in sizes), default=1) for axis in (0, 1))
    height, width = (math.ceil(side / config.divisor) * config.divisor for side in most)
    pixels = torch.zeros(len(arrays), height, width, config.channels)  # (N, H, W, C)
    for row, array, (h, w) in zip(pixels, arrays, sizes, strict=True):
        row[:h, :w] = normalize(array, config)
    valid_hw = torch.tensor(sizes, dtype=torch.int64).reshape(len(arrays), 2)
    return Images(pixels.permute(0, 3, 1, 2), valid_hw, tuple(original_hw))


def normalize(pixels: Tensor, config: DetectionPreprocess) -> Tensor:
    """Map (..., C) uint8 to normalized float32."""
    return normalize_pixels(pixels, mean=config.mean, std=config.std, white=255)


def fit(image: Image, config: DetectionPreprocess) -> Tensor:
    """Bring an image to its size in the network, as (h, w, C) uint8."""
    return resize_bilinear(torch.from_numpy(pixels_of(image)), config.network_hw(original_size(image)))
