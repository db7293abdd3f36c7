"""Images in memory: Pillow's for RGB, a `Raster` for any other number of channels; and what a model wants of them.

Shape legend: H W image size in pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import PIL.Image
from PIL.Image import Resampling, Transpose


@dataclass(frozen=True)
class Reading:
    """What a model reads: how many channels, and which values mean black and white.

    Args:
        channels: C, at least 1. 3 is RGB and 1 is gray, to which images of other modes are converted; any other number
            must be that of the file.
        value_range: (black, white) of images with more than 8 bits per channel, for example (0, 4095) for a camera of
            12 bits; values outside are cut. None takes 0..65535 for 16 bits and 0..1 for floating point. Images of 8
            bits are 0..255 either way.
        decode_side: pixels of the shorter side that are enough: JPEG files of twice as many and more are decoded at a
            half, a quarter or an eighth of their size, never below it. None decodes all pixels.

    Raises:
        ValueError: `channels` or `decode_side` is below 1, or the range is empty or not finite.
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None
    decode_side: int | None = None

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels must be at least 1, given {self.channels}")
        if self.decode_side is not None and self.decode_side < 1:
            raise ValueError(f"decode_side must be at least 1, given {self.decode_side}")
        check_value_range(self.value_range)


def check_value_range(value_range: tuple[float, float] | None) -> None:
    """Raise unless a range is None or holds two finite values, the lower one first.

    Raises:
        ValueError: it does not.
    """
    if value_range is None:
        return
    if len(value_range) != 2 or not -np.inf < value_range[0] < value_range[1] < np.inf:  # also true for NaN
        raise ValueError(
            f"value_range must be the values of black and white, two finite numbers, the lower one first, such as "
            f"(0, 4095) for 12 bits; given {value_range}"
        )


RGB = Reading()


class Raster:
    """An 8-bit image of any number of channels, with the part of Pillow's interface that preprocessing uses.

    Each channel is a Pillow image of mode "L", so that resizing has Pillow's numbers and no channel touches another
    (Pillow itself would weigh colors by an alpha channel).

    Args:
        pixels: (H, W, C) uint8.
        original_hw: (height, width) of the file where it was decoded at a smaller size, None for the size of `pixels`.

    Raises:
        ValueError: the array has another shape or type, or no pixels.

    Example:
        >>> Raster(np.zeros((4, 6, 5), dtype=np.uint8)).resize((3, 2)).pixels.shape
        (2, 3, 5)
    """

    def __init__(self, pixels: np.ndarray, original_hw: tuple[int, int] | None = None) -> None:
        if pixels.ndim != 3 or pixels.dtype != np.uint8 or not pixels.size:
            raise ValueError(f"expected an (H, W, C) uint8 array with pixels, given {pixels.shape} {pixels.dtype}")
        self.pixels = np.ascontiguousarray(pixels)
        self.height, self.width, self.channels = pixels.shape
        self.size = (self.width, self.height)  # as Pillow has it
        self.original_hw = original_hw or (self.height, self.width)

    def resize(
        self,
        size: tuple[int, int],
        resample: Resampling = Resampling.BICUBIC,
        box: tuple[float, float, float, float] | None = None,
    ) -> Raster:
        """Resize each channel to (width, height), see `PIL.Image.Image.resize`."""
        return self._each(lambda plane: plane.resize(size, resample, box=box))

    def crop(self, box: tuple[int, int, int, int]) -> Raster:
        """Cut out (left, top, right, bottom); what lies outside of the image is 0, see `PIL.Image.Image.crop`."""
        return self._each(lambda plane: plane.crop(box))

    def transpose(self, method: Transpose) -> Raster:
        """Mirror or turn, see `PIL.Image.Image.transpose`."""
        return self._each(lambda plane: plane.transpose(method))

    def to_rgb(self) -> PIL.Image.Image:
        """Return what people see of it: the first three channels as RGB, or the first one as gray."""
        shown = self.pixels[..., :3] if self.channels >= 3 else self.pixels[..., :1].repeat(3, axis=2)
        return PIL.Image.fromarray(np.ascontiguousarray(shown))

    def _each(self, change: Callable[[PIL.Image.Image], PIL.Image.Image]) -> Raster:
        planes = (PIL.Image.fromarray(np.ascontiguousarray(self.pixels[..., i])) for i in range(self.channels))
        return Raster(np.stack([np.asarray(change(plane)) for plane in planes], axis=-1))


Image = PIL.Image.Image | Raster


def pixels_of(image: Image) -> np.ndarray:
    """Return the (H, W, C) uint8 pixels of an RGB or gray Pillow image or of a `Raster`, in memory of their own.

    Example:
        >>> pixels_of(PIL.Image.new("L", (3, 2))).shape
        (2, 3, 1)
    """
    pixels = np.array(image.pixels if isinstance(image, Raster) else image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def original_size(image: Image) -> tuple[int, int]:
    """Return (height, width) of the image as it was before a reduced decoding, in pixels."""
    return image.original_hw if isinstance(image, Raster) else (image.height, image.width)


def to_rgb(image: Image) -> PIL.Image.Image:
    """Return an image to look at: RGB, of any number of channels."""
    return image.to_rgb() if isinstance(image, Raster) else image.convert("RGB")
