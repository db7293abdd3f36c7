"""From images to pixels: shorter side to S, center crop S x S, ImageNet statistics.

Shape legend: N images, S side of the crop in pixels, C channels.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from PIL.Image import Resampling
from torch import Tensor

from internimage.data.images.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalization
from internimage.data.images.raster import Image, original_size, pixels_of
from internimage.data.images.read import read_image
from internimage.data.observation import Observation as Observation
from internimage.flow import ImageInput
from internimage.moved import renamed
from internimage.ranges import Range
from internimage.types import Images

RESAMPLING = {"bicubic": Resampling.BICUBIC, "bilinear": Resampling.BILINEAR}
# Half width of the widest resampling kernel (bicubic), in source pixels of an image that is not made smaller.
KERNEL_SUPPORT = 2
# Beyond this aspect ratio an image is cut to what the center crop can see before it is resized.
MAX_ASPECT_RATIO = 32
__getattr__ = renamed(__name__, {"PreprocessConfig": __name__})


@dataclass(frozen=True)
class ClassificationPreprocess(Normalization):
    """How a classifier reads an image.

    Args:
        size: side S of the square input in pixels.
        crop: True resizes the shorter side to S and crops the center; False squashes the whole image to S x S.
        interpolation: "bicubic" or "bilinear", both with antialiasing.
        mean: mean of each channel of pixels scaled to 0..1, for RGB those of ImageNet; as many as channels are read.
        std: standard deviation of each channel of pixels scaled to 0..1.
        value_range: values of black and white in images of more than 8 bits, see `data.images.raster.Reading`.
    """

    size: Annotated[int, Range(1, 16_384)] = 224
    crop: bool = True
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interpolation not in ("bicubic", "bilinear"):
            raise ValueError(f"interpolation must be 'bicubic' or 'bilinear', given {self.interpolation!r}")

    def network_hw(self, original_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size that an image is resized to, before the crop."""
        if not self.crop:
            return self.size, self.size
        height, width = (max(1, int(self.size * side / min(original_hw))) for side in original_hw)
        return height, width


def encode_observation(observations: Sequence[Observation | None]) -> Tensor:
    """Encode dates and places the way the iNaturalist model reads them.

    Args:
        observations: one entry for each image; None where nothing is known.

    Returns:
        (N, 7) float32: sine and cosine of the month's angle, two zeros for the time of day, which the model has never
        seen, and the place as a point (x, y, z) of the unit sphere. What is not known is zero. Latitude or longitude
        0 is a place like any other (the original release took it for a missing one).

    Example:
        >>> encode_observation([Observation(latitude=0.0, longitude=0.0), None]).tolist()
        [[0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    rows = [(*_encode_date(known.date), *_encode_place(known)) for known in (o or Observation() for o in observations)]
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), 7)


def _encode_date(date: datetime.date | None) -> tuple[float, float, float, float]:
    if date is None:
        return (0.0, 0.0, 0.0, 0.0)
    angle = 2 * math.pi * date.month / 12
    return (math.sin(angle), math.cos(angle), 0.0, 0.0)


def _encode_place(observation: Observation) -> tuple[float, float, float]:
    if observation.latitude is None or observation.longitude is None:
        return (0.0, 0.0, 0.0)
    latitude, longitude = math.radians(observation.latitude), math.radians(observation.longitude)
    return (math.cos(latitude) * math.cos(longitude), math.cos(latitude) * math.sin(longitude), math.sin(latitude))


def prepare(images: Sequence[ImageInput], config: ClassificationPreprocess) -> Images:
    """Read (see `read_image`), resize, crop and normalize images: (N, C, S, S) float32 on the CPU, channels last.

    Raises:
        BadImage: a ValueError; an image cannot be read.
    """
    pixels = torch.empty(len(images), config.size, config.size, config.channels, dtype=torch.uint8)  # (N, S, S, C)
    original_hw: list[tuple[int, int]] = []
    for i, source in enumerate(images):
        image = read_image(source, config.reading, network_hw=config.network_hw)
        original_hw.append(original_size(image))
        pixels[i] = torch.from_numpy(pixels_of(fit(image, config)))
    return Images(
        normalize(pixels, config), torch.full((len(images), 2), config.size, dtype=torch.int64), tuple(original_hw)
    )


def normalize(pixels: Tensor, config: ClassificationPreprocess) -> Tensor:
    """Map (N, S, S, C) uint8 to (N, C, S, S) normalized float32, the same memory order seen through a permute."""
    return (pixels.float().div_(255) - torch.tensor(config.mean)).div_(torch.tensor(config.std)).permute(0, 3, 1, 2)


def fit(image: Image, config: ClassificationPreprocess) -> Image:
    """Bring an image to S x S; the numbers are those of Pillow and of torchvision's PIL transforms."""
    size, resampling = config.size, RESAMPLING[config.interpolation]
    shorter, longer = sorted(image.size)
    is_thin = longer > MAX_ASPECT_RATIO * shorter
    if not config.crop:
        if is_thin:  # shrink first: enlarging the shorter side of a very long image would need gigabytes
            image = image.resize((min(image.width, size), min(image.height, size)), resampling)
        return image.resize((size, size), resampling)
    if is_thin:
        return _resize_center(image, size, resampling)
    resized_longer = int(size * longer / shorter)
    is_tall = image.height >= image.width
    resized = image.resize((size, resized_longer) if is_tall else (resized_longer, size), resampling)
    left, top = round((resized.width - size) / 2.0), round((resized.height - size) / 2.0)
    return resized.crop((left, top, left + size, top + size))


def _resize_center(image: Image, size: int, resampling: Resampling) -> Image:
    """Resize the shorter side to S and crop the center, computing only the crop: for very thin images.

    Equal to resizing the whole image up to the rounding of Pillow's single-precision box.
    """
    shorter, longer = sorted(image.size)
    resized_longer = int(size * longer / shorter)
    scale = longer / resized_longer  # source pixels for one pixel of the result
    first = round((resized_longer - size) / 2.0)
    start, stop = first * scale, (first + size) * scale
    margin = math.ceil(KERNEL_SUPPORT * max(scale, 1.0)) + 1
    low, high = max(0, math.floor(start) - margin), min(longer, math.ceil(stop) + margin)
    start, stop = start - low, min(stop - low, high - low)
    if image.height >= image.width:
        part = image.crop((0, low, shorter, high))
        return part.resize((size, size), resampling, box=(0, start, shorter, stop))
    part = image.crop((low, 0, high, shorter))
    return part.resize((size, size), resampling, box=(start, 0, stop, shorter))
