"""How training images and their label maps are varied: resize, crop, flip, colors.

The draws come from a `numpy.random.RandomState` in the order of the original, so that its seeds give its images.

Shape legend: H W image size, h w size of the crop, in pixels, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import RandomState

from internimage.data.images.resize import keep_ratio_size, resize_bilinear, resize_nearest
from internimage.data.label_maps.label_map import IGNORED
from internimage.segmentation.batches.photometric import Photometric, distort

CROP_TRIES = 10


class Augmented(NamedTuple):
    """A (h, w, C) uint8 image and its (h, w) uint8 label map, 255 where there is no label."""

    image: np.ndarray
    label_map: np.ndarray


@dataclass(frozen=True)
class Augmentation:
    """A training pipeline: resize, crop, flip and photometric distortion, in this order.

    Args:
        crop_hw: (height, width) of the crop in pixels; smaller images stay smaller and are padded in the batch. None
            takes the whole image.
        scale: limits in pixels of the longer and the shorter side, to which a ratio of 1 resizes. None for the size of
            the image itself.
        ratio_range: smallest and largest ratio to that size.
        category_limit: a crop with a larger fraction of one class is drawn again, up to ten times; 1 takes the first.
        flip_probability: of mirroring left and right, 0..1.
        vertical_flip_probability: of mirroring top and bottom, for images from above or through a microscope, 0..1.
        photometric: how far colors are moved, None leaves them.

    Raises:
        ValueError: a size, a range or a probability makes no sense.

    Example:
        >>> image, label_map = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8)
        >>> Augmentation(crop_hw=(32, 32), ratio_range=(1, 2))(image, label_map, RandomState(0)).label_map.shape
        (32, 32)
    """

    crop_hw: tuple[int, int] | None = (512, 512)
    scale: tuple[int, int] | None = None
    ratio_range: tuple[float, float] = (0.5, 2.0)
    category_limit: float = 0.75
    flip_probability: float = 0.5
    vertical_flip_probability: float = 0.0
    photometric: Photometric | None = field(default_factory=Photometric)

    def __post_init__(self) -> None:
        for name in ("crop_hw", "scale"):
            value = getattr(self, name)
            if value is not None and min(value) < 1:
                raise ValueError(f"{name} must hold two sides of at least 1 pixel, given {value}")
        low, high = self.ratio_range
        if not 0 < low <= high:
            raise ValueError(f"ratio_range must be a smallest and a largest ratio above 0, given {self.ratio_range}")
        for name in ("flip_probability", "vertical_flip_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, given {getattr(self, name)}")
        if not 0 < self.category_limit <= 1:
            raise ValueError(f"category_limit must lie above 0 and up to 1, given {self.category_limit}")

    def __call__(self, image: np.ndarray, label_map: np.ndarray, random: RandomState) -> Augmented:
        """Vary one image.

        Args:
            image: (H, W, C) uint8.
            label_map: (H, W) uint8 class of every pixel, 255 where there is none.
            random: where the draws come from.

        Raises:
            ValueError: image and label map differ in size.
        """
        if image.shape[:2] != label_map.shape:
            raise ValueError(f"image and label map must have one size, given {image.shape[:2]} and {label_map.shape}")
        size_hw = self._resized(label_map.shape, random)
        region = self._crop(label_map, size_hw, random)
        # Only the pixels of the crop are computed: the numbers are those of resizing the whole image.
        writable = np.require(image, requirements="W")  # torch warns of arrays that it must not write to
        crop = resize_bilinear(torch.from_numpy(writable), size_hw, region=region).numpy()
        labels = resize_nearest(label_map, size_hw, region=region)
        if random.rand() < self.flip_probability:
            crop, labels = crop[:, ::-1], labels[:, ::-1]
        if self.vertical_flip_probability and random.rand() < self.vertical_flip_probability:
            crop, labels = crop[::-1], labels[::-1]
        if self.photometric is not None:
            crop = distort(crop, self.photometric, random)
        return Augmented(np.ascontiguousarray(crop), np.ascontiguousarray(labels))

    def _resized(self, size_hw: tuple[int, ...], random: RandomState) -> tuple[int, int]:
        """Draw the size of the resized image."""
        height, width = size_hw
        low, high = self.ratio_range
        ratio = random.random_sample() * (high - low) + low
        if self.scale is None:
            return max(1, int(height * ratio + 0.5)), max(1, int(width * ratio + 0.5))
        return keep_ratio_size((height, width), (int(self.scale[0] * ratio), int(self.scale[1] * ratio)))

    def _crop(self, label_map: np.ndarray, size_hw: tuple[int, int], random: RandomState) -> tuple[slice, slice]:
        """Draw the region of the resized image that is kept."""
        if self.crop_hw is None:
            return slice(None), slice(None)
        region = _draw_region(size_hw, self.crop_hw, random)
        if self.category_limit < 1:
            for _ in range(CROP_TRIES):
                if _is_mixed(resize_nearest(label_map, size_hw, region=region), self.category_limit):
                    break
                region = _draw_region(size_hw, self.crop_hw, random)
        return region


def _draw_region(size_hw: tuple[int, int], crop_hw: tuple[int, int], random: RandomState) -> tuple[slice, slice]:
    """Draw the place of a crop, the row first."""
    top, left = (int(random.randint(0, max(side - crop, 0) + 1)) for side, crop in zip(size_hw, crop_hw, strict=True))
    return slice(top, top + crop_hw[0]), slice(left, left + crop_hw[1])


def _is_mixed(label_map: np.ndarray, limit: float) -> bool:
    """Whether there are two classes or more and the largest holds less than `limit` of the labeled pixels."""
    counts = np.bincount(label_map.ravel(), minlength=IGNORED + 1)[:IGNORED]
    return bool(np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < limit)


def _published(
    scale: tuple[int, int], crop_hw: tuple[int, int], ratio_range: tuple[float, float] = (0.5, 2.0)
) -> Augmentation:
    return Augmentation(crop_hw=crop_hw, scale=scale, ratio_range=ratio_range)


# The pipelines of the published recipes, by data set and crop.
PUBLISHED: dict[str, Augmentation] = {
    "ade20k_512x512": _published((2048, 512), (512, 512)),
    "ade20k_640x640": _published((2560, 640), (640, 640)),
    "ade20k_896x896": _published((3584, 896), (896, 896)),
    "cityscapes_512x1024": _published((2048, 1024), (512, 1024)),
    "cityscapes_1024x1024": _published((2048, 1024), (1024, 1024)),
    "mapillary_512x1024": _published((2048, 1024), (512, 1024), (0.5, 1.0)),
    "mapillary_896x896": _published((2048, 1024), (896, 896)),
    "coco_stuff_164k_896x896": _published((3584, 896), (896, 896)),
    "coco_stuff_10k_512x512": _published((2048, 512), (512, 512)),
    "pascal_context_480x480": _published((520, 520), (480, 480)),
    "nyu_480x480": _published((2048, 512), (480, 480)),
}
