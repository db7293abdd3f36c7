"""From pictures to pixels: keep the aspect ratio, normalise, pad at the right and the bottom.

Shape legend: N images, H W size of the padded batch in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from internimage.data.pictures import read_picture
from internimage.data.resize import keep_ratio_size, resize_bilinear
from internimage.flow import Picture
from internimage.ranges import Range, check_ranges
from internimage.types import Images

IMAGENET_MEAN_255 = (123.675, 116.28, 103.53)
IMAGENET_STD_255 = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class PreprocessConfig:
    """How a detector reads a picture.

    Args:
        shorter_side: the picture is enlarged or reduced until its shorter side has this many pixels...
        longer_side: ... or its longer side this many, whatever comes first.
        divisor: the padded batch is a multiple of this, in pixels.
        mean: RGB mean of pixels in 0..255.
        std: RGB standard deviation of pixels in 0..255.
    """

    shorter_side: Annotated[int, Range(1, 16_384)] = 800
    longer_side: Annotated[int, Range(1, 1_000_000)] = 1333
    divisor: Annotated[int, Range(1, 4096)] = 32
    mean: tuple[float, float, float] = IMAGENET_MEAN_255
    std: tuple[float, float, float] = IMAGENET_STD_255

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.shorter_side > self.longer_side:
            raise ValueError(
                f"expected 1 <= shorter_side <= longer_side, given {self.shorter_side} and {self.longer_side}"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, given {self.std}")


def prepare(images: Sequence[Picture], config: PreprocessConfig) -> Images:
    """Read, resize, normalise and pad pictures.

    Args:
        images: pictures, see `internimage.data.pictures.read_picture`.
        config: size of the input and statistics.

    Returns:
        A batch of (N, 3, H, W) float32 pixels on the CPU, channels last in memory.

    Raises:
        BadPicture: a ValueError; a picture cannot be read.
    """
    pictures = [read_picture(source) for source in images]
    return batch([fit(picture, config) for picture in pictures], [(p.height, p.width) for p in pictures], config)


def batch(arrays: Sequence[Tensor], original_hw: Sequence[tuple[int, int]], config: PreprocessConfig) -> Images:
    """Normalise and pad uint8 (h, w, 3) arrays that have their final size already."""
    sizes = [array.shape[:2] for array in arrays]
    height, width = (_padded(max((size[axis] for size in sizes), default=1), config.divisor) for axis in (0, 1))
    pixels = torch.zeros(len(arrays), height, width, 3)  # (N, H, W, 3)
    for row, array, (h, w) in zip(pixels, arrays, sizes, strict=True):
        row[:h, :w] = normalize(array, config)
    valid_hw = torch.tensor(sizes, dtype=torch.int64).reshape(len(arrays), 2)
    return Images(pixels.permute(0, 3, 1, 2), valid_hw, tuple(original_hw))


def normalize(pixels: Tensor, config: PreprocessConfig) -> Tensor:
    """Map (..., 3) uint8 RGB to normalised float32."""
    scale = 1 / torch.tensor(config.std, dtype=torch.float64)
    return (pixels.float() - torch.tensor(config.mean)).mul_(scale.float())


def fit(picture: Image, config: PreprocessConfig) -> Tensor:
    """Bring an RGB picture to its size in the network, as (h, w, 3) uint8."""
    size_hw = keep_ratio_size((picture.height, picture.width), (config.longer_side, config.shorter_side))
    return resize_bilinear(torch.from_numpy(np.array(picture)), size_hw)


def _padded(side: int, divisor: int) -> int:
    return math.ceil(side / divisor) * divisor
