"""From images to pixels: keep-ratio resize, rounding of the size, ImageNet statistics, sliding windows.

Shape legend: N images, H W size of the network's input in pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from internimage.data.images.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalization, normalize
from internimage.data.images.raster import original_size, pixels_of
from internimage.data.images.read import ImageInput, read_image
from internimage.data.images.resize import keep_ratio_size, resize_bilinear
from internimage.moved import renamed
from internimage.ranges import Range, Ranged
from internimage.types import Images

# Longest side that a setting may ask for, in pixels.
Side = Annotated[int, Range(1, 1_000_000)]
STRIP_ROWS = 256  # rows of an image that are converted at a time, so that a huge one is held once
__getattr__ = renamed(__name__, {"PreprocessConfig": __name__})


@dataclass(frozen=True)
class SlidingWindow(Ranged):
    """Windows of one size that cover an image; where they overlap, their scores are averaged.

    Args:
        size_hw: (height, width) of a window in pixels of the network's input.
        stride_hw: (down, right) steps between windows in pixels, at most the size.

    Example:
        >>> SlidingWindow((64, 64), (40, 40)).corners((96, 128))
        [(0, 0), (0, 40), (0, 64), (32, 0), (32, 40), (32, 64)]
    """

    size_hw: tuple[Side, Side]
    stride_hw: tuple[Side, Side]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(1 <= stride <= size for stride, size in zip(self.stride_hw, self.size_hw, strict=True)):
            raise ValueError(f"strides must lie in 1..size, given {self.stride_hw} for windows of {self.size_hw}")

    def corners(self, image_hw: tuple[int, int]) -> list[tuple[int, int]]:
        """Return (top, left) of every window, row by row; the last of a row or column is shifted back inside."""
        axes = []
        for length, size, stride in zip(image_hw, self.size_hw, self.stride_hw, strict=True):
            steps = max(length - size + stride - 1, 0) // stride + 1
            axes.append([min(i * stride, max(length - size, 0)) for i in range(steps)])
        return [(top, left) for top in axes[0] for left in axes[1]]


@dataclass(frozen=True)
class SegmentationPreprocess(Normalization):
    """How a segmentor reads an image.

    Args:
        scale: limits in pixels of the longer and the shorter side; the image is resized, keeping its aspect ratio,
            to the largest size inside. None keeps the size of the image.
        multiple: a second resize rounds both sides up to multiples of this; 1 for none.
        window: cut the resized image into windows, None to look at all of it at once.
        mean: mean of each channel of pixels scaled to 0..1, for RGB those of ImageNet; as many as channels are read.
        std: standard deviation of each channel of pixels scaled to 0..1.
        value_range: values of black and white in images of more than 8 bits, see `data.images.raster.Reading`.
    """

    scale: tuple[Side, Side] | None = (2048, 512)
    multiple: Annotated[int, Range(1, 4096)] = 1
    window: SlidingWindow | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    value_range: tuple[float, float] | None = None

    def input_size(self, original_hw: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of the network's input for an image.

        Example:
            >>> SegmentationPreprocess(scale=(2048, 512), multiple=32).input_size((427, 640))
            (512, 768)
        """
        height, width = self.network_hw(original_hw)
        return (-(-height // self.multiple) * self.multiple, -(-width // self.multiple) * self.multiple)

    def resize(self, image: Tensor, original_hw: tuple[int, int] | None = None) -> Tensor:
        """Resize an (H, W, C) uint8 image, in two steps where two are configured, as the published models saw it.

        `original_hw` decides on the size where the image was decoded at a smaller one.
        """
        whole = original_hw or (image.shape[0], image.shape[1])
        return resize_bilinear(resize_bilinear(image, self.network_hw(whole)), self.input_size(whole))

    def network_hw(self, original_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size that an image is resized to in the first step."""
        return original_hw if self.scale is None else keep_ratio_size(original_hw, self.scale)


def prepare(images: Sequence[ImageInput], config: SegmentationPreprocess) -> Images:
    """Read (see `read_image`), resize and normalize images: (N, C, H, W) float32 on the CPU, channels last in memory.

    Smaller images are filled with zeros at the right and the bottom up to the largest.

    Raises:
        BadImage: a ValueError; an image cannot be read.
    """
    resized: list[Tensor] = []
    original_hw: list[tuple[int, int]] = []
    for source in images:
        image = read_image(source, config.reading, network_hw=config.network_hw)
        original_hw.append(original_size(image))
        resized.append(config.resize(torch.from_numpy(pixels_of(image)), original_hw[-1]))
    sizes = [(one.shape[0], one.shape[1]) for one in resized]
    height, width = max((h for h, _ in sizes), default=0), max((w for _, w in sizes), default=0)
    pixels = torch.zeros(len(images), height, width, config.channels)
    for i, whole in enumerate(resized):
        for top, strip in zip(range(0, sizes[i][0], STRIP_ROWS), whole.split(STRIP_ROWS), strict=True):
            pixels[i, top : top + len(strip), : sizes[i][1]] = normalize(strip, mean=config.mean, std=config.std)
    valid_hw = torch.tensor(sizes, dtype=torch.int64).reshape(len(images), 2)
    return Images(pixels.permute(0, 3, 1, 2), valid_hw, tuple(original_hw))
