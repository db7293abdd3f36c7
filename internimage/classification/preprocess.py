"""From pictures to pixels: shorter side to S, centre crop S x S, ImageNet statistics.

Shape legend: N images, S side of the crop in pixels.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL.Image import Image, Resampling
from torch import Tensor

from internimage.data.pictures import read_picture
from internimage.flow import Picture
from internimage.types import Images

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PreprocessConfig:
    """How a classifier reads a picture.

    Args:
        size: side S of the square input in pixels.
        crop: True resizes the shorter side to S and crops the centre; False squashes the whole picture to S x S.
        interpolation: "bicubic" or "bilinear", both with antialiasing.
        mean: RGB mean of pixels scaled to 0..1.
        std: RGB standard deviation of pixels scaled to 0..1.
    """

    size: int = 224
    crop: bool = True
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, given {self.size}")
        if self.interpolation not in ("bicubic", "bilinear"):
            raise ValueError(f"interpolation must be 'bicubic' or 'bilinear', given {self.interpolation!r}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, given {self.std}")
