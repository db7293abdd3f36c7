"""Several looks at each image, in other sizes and mirrored, merged into one answer.

Shape legend: N images, R answers of all views of an image, S side of a mask's probability map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from PIL.Image import Transpose

from internimage.data.images.read import read_image
from internimage.detection import Detector
from internimage.detection.box_merging import Merged, Method, merge_boxes
from internimage.detection.postprocess import RawDetections, check_finite
from internimage.detection.preprocess import PreprocessConfig, prepare
from internimage.flow import ImageInput
from internimage.types import Detections, Images

DEFAULT_FACTORS = (0.75, 1.0, 1.25)


@dataclass(frozen=True)
class MultiScale:
    """How an image is looked at more than once.

    Args:
        sizes: (shorter side, longer side) in pixels of each look, see `PreprocessConfig`.
        flip: whether each look is repeated on the mirrored image.
        method: how the answers are merged, see `merge_boxes`.
        iou: overlap from which answers show the same object, 0..1.
        min_score: answers below are dropped after merging, 0..1.
        max_per_image: largest number of objects in an answer, None for the model's.

    Raises:
        ValueError: there is no size, or a number is out of range.
    """

    sizes: tuple[tuple[int, int], ...]
    flip: bool = True
    method: Method = "soft_nms"
    iou: float = 0.5
    min_score: float = 1e-3
    max_per_image: int | None = None

    def __post_init__(self) -> None:
        if not self.sizes or not all(1 <= shorter <= longer for shorter, longer in self.sizes):
            raise ValueError(f"sizes must hold (shorter, longer) sides in pixels, given {self.sizes}")
        if not 0 < self.iou <= 1 or not 0 <= self.min_score < 1:
            raise ValueError(f"iou and min_score must lie in 0..1, given {self.iou} and {self.min_score}")

    @property
    def num_views(self) -> int:
        """Looks at each image."""
        return len(self.sizes) * (2 if self.flip else 1)


def usual_scales(model: Detector, *, factors: Sequence[float] = DEFAULT_FACTORS, flip: bool = True) -> MultiScale:
    """Return looks at the model's own input size times some factors.

    Example:
        >>> from internimage.backbones import variant
        >>> from internimage.detection import build_detector, DINOConfig
        >>> usual_scales(build_detector(DINOConfig(variant("internimage_pico"), 3, channels=32))).sizes
        ((600, 1000), (800, 1333), (1000, 1666))
    """
    own = model.config.preprocess
    sizes = [(max(1, round(own.shorter_side * f)), max(1, round(own.longer_side * f))) for f in factors]
    return MultiScale(tuple(sizes), flip=flip)


class View(NamedTuple):
    """One look at each image of a batch."""

    images: Images
    is_mirrored: bool


@dataclass(frozen=True)
class Looking:
    """Turns a batch of images into all looks at them; it can be sent to a reading process.

    Args:
        config: how the model reads images.
        settings: the looks.
    """

    config: PreprocessConfig
    settings: MultiScale

    def __call__(self, images: Sequence[ImageInput]) -> list[View]:
        """Read, mirror, resize and normalize."""
        read = [read_image(image, self.config.reading) for image in images]
        mirrored = [image.transpose(Transpose.FLIP_LEFT_RIGHT) for image in read] if self.settings.flip else []
        views: list[View] = []
        for shorter, longer in self.settings.sizes:
            config = replace(self.config, shorter_side=shorter, longer_side=longer)
            views.append(View(prepare(read, config), False))
            if self.settings.flip:
                views.append(View(prepare(mirrored, config), True))
        return views


def predict_multi_scale(
    model: Detector, images: Sequence[ImageInput], settings: MultiScale, *, batch_size: int = 1
) -> list[Detections]:
    """Find the objects of each image by several looks at it.

    The boxes of each look are led back to the original image, mirrored ones mirrored back, and merged class by class.
    A merged object has the mask of its best answer.

    Args:
        model: the detector.
        images: images, see `TaskModel.predict`.
        settings: the looks and how they are merged; `usual_scales` proposes some.
        batch_size: images in one forward pass, at least 1.

    Raises:
        TypeError: `images` is one image instead of a list of them.
        ValueError: an image cannot be read, or the model answers with NaN.
    """
    looking = Looking(model.config.preprocess, settings)
    last: list[list[View]] = []

    def look(part: slice) -> Images:
        last[:] = [looking(images[part])]
        return last[0][0].images

    return model.predict_in_batches(
        images, look, batch_size=batch_size, predict_batch=lambda _: merge_views(model, last[0], settings)
    )


def merge_views(model: Detector, views: Sequence[View], settings: MultiScale) -> list[Detections]:
    """Run a batch of looks through the network and merge what they find; the mode is the caller's."""
    with torch.inference_mode():
        found = [_in_original(model, view) for view in views]
        original_hw = views[0].images.original_hw
        limit = settings.max_per_image or model.config.max_per_image
        merged = [_merge_image([part[i] for part in found], i, settings, limit) for i in range(len(original_hw))]
        outputs = RawDetections.join(merged)
        # In original pixels already, so that the image counts as its own input.
        own = Images(outputs.boxes.new_zeros(len(merged), 3, 1, 1), torch.tensor(original_hw), original_hw)
        return model.postprocess(outputs, own)


def _in_original(model: Detector, view: View) -> list[RawDetections]:
    """Answers to one look at each image, in pixels of the original, mirrored back."""
    raw = model.run(view.images.to(model.device, model.dtype))
    check_finite(raw)
    answers: list[RawDetections] = []
    for i, (height, width) in enumerate(view.images.original_hw):
        own = (raw.image == i).nonzero().flatten()
        valid_height, valid_width = view.images.valid_hw[i].tolist()
        scale = raw.boxes.new_tensor([width / valid_width, height / valid_height]).float().repeat(2)
        boxes = raw.boxes[own].float() * scale
        masks = None if raw.mask_probabilities is None else raw.mask_probabilities[own].float()
        if view.is_mirrored:
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
            masks = None if masks is None else masks.flip(-1)
        answers.append(RawDetections(boxes, raw.scores[own].float(), raw.labels[own], raw.image[own], masks))
    return answers


def _merge_image(answers: Sequence[RawDetections], number: int, settings: MultiScale, limit: int) -> RawDetections:
    """Merge the answers of all looks at one image."""
    every = RawDetections.join(answers)
    merged = merge_boxes(
        every.boxes.cpu().numpy(),
        every.scores.cpu().numpy(),
        every.labels.cpu().numpy(),
        method=settings.method,
        iou=settings.iou,
        num_views=settings.num_views,
        min_score=settings.min_score,
    )
    merged = Merged(*(part[:limit] for part in merged))
    index = torch.from_numpy(merged.sources).to(every.labels.device)
    return RawDetections(
        torch.from_numpy(merged.boxes.astype(np.float32)).to(index.device),
        torch.from_numpy(merged.scores.astype(np.float32)).to(index.device),
        every.labels[index],
        torch.full_like(index, number),
        None if every.mask_probabilities is None else every.mask_probabilities[index],
    )
