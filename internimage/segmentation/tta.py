"""Test-time augmentation: several views of each image, in other sizes and mirrored; their mean probabilities decide.

Shape legend: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from internimage.checkpoints.catalog import CatalogEntry
from internimage.data.images.read import read_image
from internimage.flow import ImageInput
from internimage.layers.evaluation_mode import evaluation_mode
from internimage.moved import renamed_attribute, renamed_keywords
from internimage.segmentation import SegmentationPreprocess, Segmentor
from internimage.segmentation.postprocess import ScoreMap, best_class
from internimage.segmentation.preprocess import prepare
from internimage.types import Images, Segmentation

# Ratios of the input size that the published multi-scale metrics were measured with, each plain and mirrored.
PUBLISHED_RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
# Those of Mask2Former on ADE20K, whose shorter side goes from 768 to 1024 pixels around 896.
MASK2FORMER_ADE20K_RATIOS = tuple(side / 896 for side in (768, 832, 896, 960, 1024))
MASK2FORMER_ADE20K = "mask2former_internimage_h_896_80k_cocostuff2ade20k"


@dataclass(frozen=True)
class SegmentationTTA:
    """Which views of an image are taken.

    Args:
        ratios: factors on the input size of the model, one view each.
        flip: repeat each view on the mirrored image.

    Raises:
        ValueError: there is no ratio, or one is not positive.
    """

    ratios: tuple[float, ...] = PUBLISHED_RATIOS
    flip: bool = True

    def __post_init__(self) -> None:
        if not self.ratios or min(self.ratios) <= 0:
            raise ValueError(f"ratios must be positive factors on the input size, at least one, given {self.ratios}")

    @property
    def num_views(self) -> int:
        """Views of each image."""
        return len(self.ratios) * (2 if self.flip else 1)

    num_looks = renamed_attribute("num_looks", "num_views")


SINGLE_SCALE = SegmentationTTA((1.0,), flip=False)


def published_scales(entry: CatalogEntry | None) -> SegmentationTTA:
    """Return how the published multi-scale metric of a checkpoint was measured, or usually is (None).

    Example:
        >>> from internimage import info
        >>> published_scales(info("upernet_internimage_t_512_160k_ade20k")).num_views
        12
    """
    is_exception = entry is not None and entry.name == MASK2FORMER_ADE20K
    return SegmentationTTA(MASK2FORMER_ADE20K_RATIOS if is_exception else PUBLISHED_RATIOS)


@renamed_keywords(looks="tta")
def predict_multi_scale(
    model: Segmentor,
    images: Sequence[ImageInput],
    tta: SegmentationTTA,
    *,
    preprocess: SegmentationPreprocess | None = None,
) -> list[Segmentation]:
    """Segment each image by the mean of the probabilities of several views of it.

    Args:
        model: the segmentor; its mode is restored afterward.
        images: images, see `TaskModel.predict`.
        tta: sizes, and whether images are mirrored.
        preprocess: how images become pixels at a ratio of 1, None for the model's own; windows are kept.

    Raises:
        ValueError: an image cannot be read, or the scores are not finite.
    """
    config = preprocess or model.config.preprocess
    read = ScaleReader(config, tta)
    with evaluation_mode(model):
        return [predict_views(model, read([image])[0], tta, config) for image in images]


@dataclass(frozen=True)
class ScaleReader:
    """Turns images into batches of each size; it can be sent to a reading process."""

    config: SegmentationPreprocess  # at a ratio of 1
    tta: SegmentationTTA

    def __call__(self, images: Sequence[ImageInput]) -> list[tuple[Images, ...]]:
        """Return the image in each size, as batches of one."""
        views: list[tuple[Images, ...]] = []
        for image in (read_image(image, self.config.reading) for image in images):
            configs = (scaled(self.config, ratio, (image.height, image.width)) for ratio in self.tta.ratios)
            views.append(tuple(prepare([image], config) for config in configs))
        return views


def scaled(config: SegmentationPreprocess, ratio: float, image_hw: tuple[int, int]) -> SegmentationPreprocess:
    """Return a preprocessing whose size is larger by a factor; `image_hw` counts where it keeps the size."""
    if config.scale is None and ratio == 1:
        return config
    longer, shorter = config.scale or (max(image_hw), min(image_hw))
    return replace(config, scale=(max(1, int(longer * ratio)), max(1, int(shorter * ratio))))


def predict_views(
    model: Segmentor, sizes: Sequence[Images], tta: SegmentationTTA, config: SegmentationPreprocess
) -> Segmentation:
    """Segment one image by all views of it; the mode is the caller's.

    Only a few rows of the probabilities exist at a time, so that large images with many classes fit. `sizes` are the
    image in each size, as batches of one; `config` says whether windows are cut.
    """
    with torch.inference_mode():
        views = list(_views(model, sizes, tta, config))
        rows = min(scores.strip_rows() for scores, _ in views)
        labels: list[Tensor] = []
        for strips in zip(*(scores.strips(rows=rows) for scores, _ in views), strict=True):
            total = torch.zeros_like(strips[0])
            for strip, (_, is_mirrored) in zip(strips, views, strict=True):
                total += (strip.flip(2) if is_mirrored else strip).softmax(dim=0)
            labels.append(best_class(total).cpu())
    return Segmentation(torch.cat(labels), model.config.num_classes, model.config.class_names, model.config.palette)


def _views(
    model: Segmentor, sizes: Sequence[Images], tta: SegmentationTTA, config: SegmentationPreprocess
) -> Iterator[tuple[ScoreMap, bool]]:
    """Give the scores of each view, and whether it is mirrored."""
    for images in sizes:
        for is_mirrored in (False, True) if tta.flip else (False,):
            pixels = images.pixels.flip(3) if is_mirrored else images.pixels
            [scores] = model.run(replace(images, pixels=pixels).to(model.device, model.dtype), preprocess=config)
            yield scores, is_mirrored
