"""Images with a mask file each: the one data set of segmentation, whatever the folders look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from internimage.data.dataset import Sample, SampleSource
from internimage.data.images.image_file import is_turned
from internimage.data.images.raster import RGB, Reading
from internimage.data.images.read import read_image
from internimage.data.label_maps.label_map import MaskValues, read_label_map
from internimage.types import Palette


class MaskedImage(NamedTuple):
    """Files of an image and its mask, and what the values of the mask stand for."""

    image: Path
    mask: Path
    values: MaskValues


class SegmentationDataset:
    """Images and label maps; `dataset[i]` raises a ValueError that names the file when one of the two is broken.

    Args:
        files: image and mask of each sample.
        class_names: K names.
        palette: K colors (red, green, blue) 0..255 to draw the classes with, or None.

    Raises:
        ValueError: there are no samples, or names and colors differ in number.
    """

    reading: Reading = RGB

    def __init__(
        self, files: Sequence[MaskedImage], class_names: Sequence[str], *, palette: Palette | None = None
    ) -> None:
        if not files:
            raise ValueError("a data set needs at least one image with its mask")
        if palette is not None and len(palette) != len(class_names):
            raise ValueError(f"palette must hold {len(class_names)} colors, one for each class, given {len(palette)}")
        self.files = tuple(files)
        self.palette = palette
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample[np.ndarray]:
        """Read a sample: the target is its (H, W) uint8 label map, 255 where there is no label."""
        files = self.files[index]
        image = read_image(files.image, self.reading)
        label_map = self.label_map(index)
        if (image.height, image.width) != label_map.shape:
            raise ValueError(_size_mismatch(files, (image.height, image.width), label_map.shape))
        return Sample(image, label_map, str(files.image))

    def label_map(self, index: int) -> np.ndarray:
        """Read the (H, W) uint8 label map of a sample alone.

        Raises:
            ValueError: the mask is broken; the message names its file.
        """
        files = self.files[index]
        return read_label_map(files.mask, files.values)

    def source(self, index: int) -> SampleSource:
        """Return the files of an image and of its mask, and what the values of the mask stand for."""
        files = self.files[index]
        return SampleSource(files.image, files.mask, target_note=f"{files.values.digest}/")

    def __add__(self, other: SegmentationDataset) -> SegmentationDataset:
        """Return the samples of both.

        Raises:
            ValueError: the classes differ.
        """
        if self.class_names != other.class_names:
            raise ValueError("data sets with different classes cannot be joined")
        joined = SegmentationDataset(self.files + other.files, self.class_names, palette=self.palette)
        joined.reading = self.reading
        return joined


def _size_mismatch(files: MaskedImage, size_hw: tuple[int, int], mask_hw: tuple[int, ...]) -> str:
    """Say that a mask has another (height, width) than its image, and why where the camera turned the image."""
    text = f"{files.mask}: the mask has (height, width) {mask_hw}, but its image {files.image} has {size_hw}"
    if mask_hw != size_hw[::-1] or not is_turned(files.image):
        return f"{text}; give both one size"
    return (
        f"{text}: height and width are swapped, since the EXIF orientation of the file turns the image upright. Save "
        "the image without the EXIF orientation, or turn the mask"
    )
