"""Several looks at each image, in other sizes and mirrored; the mean of their probabilities decides.

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
from internimage.segmentation import PreprocessConfig, Segmentor
from internimage.segmentation.postprocess import ScoreMap, best_class
from internimage.segmentation.preprocess import prepare
from internimage.types import Images, Segmentation

# Ratios of the input size that the published multi-scale figures were measured with, each plain and mirrored.
PUBLISHED_RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
# Those of Mask2Former on ADE20K, whose shorter side goes from 768 to 1024 pixels around 896.
MASK2FORMER_ADE20K_RATIOS = tuple(side / 896 for side in (768, 832, 896, 960, 1024))
MASK2FORMER_ADE20K = "mask2former_internimage_h_896_80k_cocostuff2ade20k"


@dataclass(frozen=True)
class MultiScale:
    """How an image is looked at.

    Args:
        ratios: factors on the input size of the model, one look each.
        flip: repeat each look on the mirrored image.

    Raises:
        ValueError: there is no ratio, or one is not positive.
    """

    ratios: tuple[float, ...] = PUBLISHED_RATIOS
    flip: bool = True

    def __post_init__(self) -> None:
        if not self.ratios or min(self.ratios) <= 0:
            raise ValueError(f"ratios must be positive factors on the input size, at least one, given {self.ratios}")

    @property
    def num_looks(self) -> int:
        """Looks at each image."""
        return len(self.ratios) * (2 if self.flip else 1)


SINGLE_SCALE = MultiScale((1.0,), flip=False)


def published_scales(entry: CatalogEntry) -> MultiScale:
    """Return how the published multi-scale figure of a checkpoint was measured.

    Example:
        >>> from internimage import info
        >>> published_scales(info("upernet_internimage_t_512_160k_ade20k")).num_looks
        12
    """
    return MultiScale(MASK2FORMER_ADE20K_RATIOS if entry.name == MASK2FORMER_ADE20K else PUBLISHED_RATIOS)


def predict_multi_scale(
    model: Segmentor,
    images: Sequence[ImageInput],
    looks: MultiScale,
    *,
    preprocess: PreprocessConfig | None = None,
) -> list[Segmentation]:
    """Answer for each image by the mean of the probabilities of several looks at it.

    Args:
        model: the segmentor; its mode is restored afterward.
        images: images, see `TaskModel.predict`.
        looks: sizes, and whether images are mirrored.
        preprocess: how images become pixels at a ratio of 1, None for the model's own; windows are kept.

    Raises:
        ValueError: an image cannot be read, or the scores are not finite.
    """
    config = preprocess or model.config.preprocess
    looking = Looking(config, looks)
    with evaluation_mode(model):
        return [answer_looks(model, looking([image])[0], looks, config) for image in images]


@dataclass(frozen=True)
class Looking:
    """Turns images into all looks at them; it can be sent to a reading process.

    Args:
        config: how images become pixels at a ratio of 1.
        looks: the ratios.
    """

    config: PreprocessConfig
    looks: MultiScale

    def __call__(self, images: Sequence[ImageInput]) -> list[tuple[Images, ...]]:
        """Return the image in each size, as batches of one."""
        read = [read_image(image, self.config.reading) for image in images]
        return [
            tuple(
                prepare([image], scaled(self.config, ratio, (image.height, image.width))) for ratio in self.looks.ratios
            )
            for image in read
        ]


def scaled(config: PreprocessConfig, ratio: float, image_hw: tuple[int, int]) -> PreprocessConfig:
    """Return a preprocessing whose size is larger by a factor; `image_hw` counts where it keeps the size."""
    if config.scale is None and ratio == 1:
        return config
    longer, shorter = config.scale or (max(image_hw), min(image_hw))
    return replace(config, scale=(max(1, int(longer * ratio)), max(1, int(shorter * ratio))))


def answer_looks(
    model: Segmentor, sizes: Sequence[Images], looks: MultiScale, config: PreprocessConfig
) -> Segmentation:
    """Answer for one image by all looks at it; the mode is the caller's.

    Only a few rows of the probabilities exist at a time, so that large images with many classes fit.

    Args:
        model: the segmentor.
        sizes: the image in each size, as batches of one.
        looks: whether each is mirrored, too.
        config: says whether windows are cut.
    """
    with torch.inference_mode():
        views = list(_views(model, sizes, looks, config))
        rows = min(scores.strip_rows() for scores, _ in views)
        labels: list[Tensor] = []
        classes = 0
        for strips in zip(*(scores.strips(rows=rows) for scores, _ in views), strict=True):
            total = torch.zeros_like(strips[0])
            for strip, (_, is_mirrored) in zip(strips, views, strict=True):
                total += (strip.flip(2) if is_mirrored else strip).softmax(dim=0)
            classes = total.shape[0]
            labels.append(best_class(total).cpu())
    return Segmentation(torch.cat(labels), classes, model.config.class_names, model.config.palette)


def _views(
    model: Segmentor, sizes: Sequence[Images], looks: MultiScale, config: PreprocessConfig
) -> Iterator[tuple[ScoreMap, bool]]:
    """Give the scores of each look, and whether it is mirrored."""
    for images in sizes:
        for is_mirrored in (False, True) if looks.flip else (False,):
            pixels = images.pixels.flip(3) if is_mirrored else images.pixels
            [scores] = model.run(replace(images, pixels=pixels).to(model.device, model.dtype), preprocess=config)
            yield scores, is_mirrored
