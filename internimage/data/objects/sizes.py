"""Do images have the sizes that their annotations state? Boxes of another size, or of a turned image, mean nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from internimage.data.images.read import image_size
from internimage.data.objects.dataset import DetectionDataset, size_mismatch

logger = logging.getLogger(__name__)
SAMPLED, SHOWN = 64, 3


def check_sizes(dataset: DetectionDataset) -> None:
    """Compare sizes with the headers of some images, and of all where none of these fits.

    Images that cannot be read are reported when they are; single images of another size are left out then, too.

    Raises:
        ValueError: not one image has the size that is annotated; the message says why.
    """
    number = len(dataset)
    some = np.unique(np.linspace(0, max(number - 1, 0), num=min(SAMPLED, number), dtype=np.int64)).tolist()
    wrong = [reason for index in some if (reason := _mismatch(dataset, index)) is not None]
    if not wrong:
        return
    examples = "\n  ".join(wrong[:SHOWN])
    if len(wrong) == len(some) and all(_mismatch(dataset, index) is not None for index in range(number)):
        raise ValueError(f"{dataset.name}: none of {number} images has the size that is annotated:\n  {examples}")
    logger.warning(
        "%s: %d of %d images looked at have another size than annotated and are left out:\n  %s",
        dataset.name,
        len(wrong),
        len(some),
        examples,
    )


def _mismatch(dataset: DetectionDataset, index: int) -> str | None:
    """Return what is wrong with the size of an image, None where nothing is, or nothing is known."""
    file: Path = dataset.file(index)
    annotated = dataset.annotated_size(index)
    if annotated is None:
        return None
    try:
        size_hw = image_size(file)
    except ValueError:
        return None
    return None if size_hw == annotated else size_mismatch(file, size_hw, annotated)
