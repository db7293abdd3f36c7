"""Test-time augmentation: several views of each image, in other sizes and mirrored, merged into one prediction.

Shape legend: N images, R predictions of all views of an image, S side of a mask's probability map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from PIL.Image import Transpose

from internimage.data.images.read import read_image
from internimage.detection import Detector
from internimage.detection.box_merging import merge_boxes
from internimage.detection.postprocess import RawDetections, check_finite
from internimage.detection.preprocess import DetectionPreprocess, prepare
from internimage.flow import ImageInput
from internimage.moved import renamed_keywords
from internimage.options import Merging
from internimage.types import Detections, Images

DEFAULT_FACTORS = (0.75, 1.0, 1.25)


@dataclass(frozen=True)
class DetectionTTA:
    """Which views of an image are taken, and how their predictions are merged.

    Args:
        sizes: (shorter side, longer side) in pixels of each view, see `DetectionPreprocess`.
        flip: whether each view is repeated on the mirrored image.
        method: how the predictions are merged, see `merge_boxes`.
        iou: overlap from which predictions show the same object, 0..1.
        min_score: predictions below are dropped after merging, 0..1.
        max_per_image: most objects of an image, None for the model's.

    Raises:
        ValueError: there is no size, or a number is out of range.
    """

    sizes: tuple[tuple[int, int], ...]
    flip: bool = True
    method: Merging = "soft_nms"
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
        """Views of each image."""
        return len(self.sizes) * (2 if self.flip else 1)


def usual_scales(model: Detector, *, factors: Sequence[float] = DEFAULT_FACTORS, flip: bool = True) -> DetectionTTA:
    """Return views at the model's own input size times some factors.

    Example:
        >>> from internimage.backbones import variant
        >>> from internimage.detection import build_detector, DINOConfig
        >>> usual_scales(build_detector(DINOConfig(variant("internimage_pico"), 3, channels=32))).sizes
        ((600, 1000), (800, 1333), (1000, 1666))
    """
    own = model.config.preprocess
    sizes = [(max(1, round(own.shorter_side * f)), max(1, round(own.longer_side * f))) for f in factors]
    return DetectionTTA(tuple(sizes), flip=flip)


class View(NamedTuple):
    """One view of each image of a batch."""

    images: Images
    is_mirrored: bool


@dataclass(frozen=True)
class ViewReader:
    """Turns a batch of images into all views of them; it can be sent to a reading process."""

    config: DetectionPreprocess
    tta: DetectionTTA

    def __call__(self, images: Sequence[ImageInput]) -> list[View]:
        """Read, mirror, resize and normalize."""
        read = [read_image(image, self.config.reading) for image in images]
        mirrored = [image.transpose(Transpose.FLIP_LEFT_RIGHT) for image in read] if self.tta.flip else []
        configs = [replace(self.config, shorter_side=side, longer_side=longer) for side, longer in self.tta.sizes]
        both = ((False, read), (True, mirrored)) if self.tta.flip else ((False, read),)
        return [View(prepare(some, config), is_mirrored) for config in configs for is_mirrored, some in both]


@renamed_keywords(settings="tta")
def predict_multi_scale(
    model: Detector, images: Sequence[ImageInput], tta: DetectionTTA, *, batch_size: int = 1
) -> list[Detections]:
    """Find the objects of each image in several views of it.

    The boxes of each view are scaled back to the original image, mirrored ones mirrored back, and merged class by
    class. A merged object has the mask of its best prediction.

    Args:
        model: the detector.
        images: images, see `TaskModel.predict`.
        tta: the views and how they are merged; `usual_scales` proposes some.
        batch_size: images in one forward pass, at least 1.

    Raises:
        TypeError: `images` is one image instead of a list of them.
        ValueError: an image cannot be read, or the model predicts NaN.
    """
    read = ViewReader(model.config.preprocess, tta)
    return model.predict_in_batches(
        images, lambda part: read(images[part]), lambda views: merge_views(model, views, tta), batch_size=batch_size
    )


def merge_views(model: Detector, views: Sequence[View], tta: DetectionTTA) -> list[Detections]:
    """Run all views of a batch through the network and merge what they find; the mode is the caller's."""
    with torch.inference_mode():
        found = [_in_original(model, view) for view in views]
        original_hw = views[0].images.original_hw
        limit = tta.max_per_image or model.config.max_per_image
        merged = [_merge_image([part[i] for part in found], i, tta, limit) for i in range(len(original_hw))]
        outputs = RawDetections.join(merged)
        # In original pixels already, so that the image counts as its own input.
        own = Images(outputs.boxes.new_zeros(len(merged), 3, 1, 1), torch.tensor(original_hw), original_hw)
        return model.postprocess(outputs, own)


def _in_original(model: Detector, view: View) -> list[RawDetections]:
    """Predictions for one view of each image, in pixels of the original, mirrored back."""
    raw = model.run(view.images.to(model.device, model.dtype))
    check_finite(raw)
    predictions: list[RawDetections] = []
    for i, (height, width) in enumerate(view.images.original_hw):
        own = (raw.image == i).nonzero().flatten()
        valid_height, valid_width = view.images.valid_hw[i].tolist()
        scale = raw.boxes.new_tensor([width / valid_width, height / valid_height]).float().repeat(2)
        boxes = raw.boxes[own].float() * scale
        masks = None if raw.mask_probabilities is None else raw.mask_probabilities[own].float()
        if view.is_mirrored:
            left, top, right, bottom = boxes.unbind(1)
            boxes = torch.stack([width - right, top, width - left, bottom], dim=1)
            masks = None if masks is None else masks.flip(-1)
        predictions.append(RawDetections(boxes, raw.scores[own].float(), raw.labels[own], raw.image[own], masks))
    return predictions


def _merge_image(views: Sequence[RawDetections], position: int, tta: DetectionTTA, limit: int) -> RawDetections:
    """Merge the predictions for all views of the image at a position of the batch."""
    every = RawDetections.join(views)
    merged = merge_boxes(
        *(values.cpu().numpy() for values in (every.boxes, every.scores, every.labels)),
        method=tta.method,
        iou=tta.iou,
        num_views=tta.num_views,
        min_score=tta.min_score,
    )
    sources, boxes, scores = (torch.from_numpy(part[:limit]) for part in merged)
    sources, boxes, scores = (x.to(every.labels.device) for x in (sources, boxes.float(), scores.float()))
    return every.select(sources)._replace(boxes=boxes, scores=scores, image=torch.full_like(sources, position))
