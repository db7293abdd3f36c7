"""Training views of an image: flips, resizes and crops, with the random draws of the published pipelines.

Every draw comes from one `numpy.random.RandomState`, in the order of the original, so that a seed gives the same view
there and here. Images are resized in the arithmetic of OpenCV. Masks are read once, at the end: flips, resizes to the
nearest neighbor and crops only move the rows and columns that will be read.

Shape legend: H W size of the image as read, h w size of the view, C channels, G objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from internimage.data.dataset import Sample
from internimage.data.images.raster import pixels_of
from internimage.data.images.resize import keep_ratio_size, resize_bilinear
from internimage.data.objects.annotation import ObjectTargets

RandomSource = np.random.RandomState


class TrainingView(NamedTuple):
    """One augmented image, not normalized and not padded yet."""

    pixels: Tensor  # (h, w, C) uint8 RGB
    boxes_xyxy: Tensor  # (G, 4) float32 corners in pixels of the view
    labels: Tensor  # (G,) int64 class indices
    masks: Tensor | None  # (G, h, w) bool, or None in data sets without masks
    original_hw: tuple[int, int]  # of the image as it was read, in pixels
    name: str  # of the file, for messages


class AugmentedFrame(NamedTuple):
    """A view in the making."""

    pixels: Tensor  # (h, w, C) uint8
    boxes: np.ndarray  # (G, 4) float32 corners in pixels
    objects: np.ndarray  # (G,) int64 indices of the objects that are still seen
    rows: np.ndarray  # (h,) int64 row of the original masks that each row shows
    columns: np.ndarray  # (w,) int64 column of the original masks that each column shows

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.pixels.shape[0], self.pixels.shape[1])


class Step(Protocol):
    """One step of a pipeline."""

    def __call__(self, frame: AugmentedFrame, rng: RandomSource) -> AugmentedFrame | None:
        """Return the changed frame, None to reject the image."""
        ...


Pipeline = tuple[Step, ...]


@dataclass(frozen=True)
class Flip:
    """Mirror left and right."""

    probability: float = 0.5

    def __call__(self, frame: AugmentedFrame, rng: RandomSource) -> AugmentedFrame:
        """Mirror the frame, or not."""
        if rng.choice(2, p=(self.probability, 1 - self.probability)) == 1:
            return frame
        boxes = frame.boxes.copy()
        boxes[:, 0] = frame.size_hw[1] - frame.boxes[:, 2]
        boxes[:, 2] = frame.size_hw[1] - frame.boxes[:, 0]
        return frame._replace(pixels=frame.pixels.flip(1), boxes=boxes, columns=frame.columns[::-1])


def resized(frame: AugmentedFrame, scale: tuple[int, int]) -> AugmentedFrame:
    """Return the frame in the largest size inside of a scale (shorter side, longer side) that keeps its shape."""
    height, width = frame.size_hw
    size = keep_ratio_size(frame.size_hw, scale)
    factors = np.array([size[1] / width, size[0] / height] * 2, dtype=np.float32)
    return frame._replace(
        pixels=resize_bilinear(frame.pixels, size),
        boxes=_clipped(frame.boxes * factors, size),
        rows=frame.rows[_nearest(size[0], height)],
        columns=frame.columns[_nearest(size[1], width)],
    )


def _nearest(new: int, old: int) -> np.ndarray:
    """Return the old index that each new one shows, as OpenCV chooses it."""
    return np.minimum((np.arange(new) * (1.0 / (new / old))).astype(np.int64), old - 1)


def _clipped(boxes: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    return np.clip(boxes, 0, np.array([size_hw[1], size_hw[0]] * 2, dtype=np.float32))


@dataclass(frozen=True)
class Resize:
    """Resize to one of several scales, keeping the aspect ratio.

    Args:
        shorter_sides: limits of the shorter side in pixels, one of which is drawn; of a single one there is no draw.
        longer_side: limit of the longer side in pixels.
    """

    shorter_sides: tuple[int, ...]
    longer_side: int

    def __call__(self, frame: AugmentedFrame, rng: RandomSource) -> AugmentedFrame:
        """Draw the scale and resize."""
        index = int(rng.randint(len(self.shorter_sides))) if len(self.shorter_sides) > 1 else 0
        return resized(frame, (self.shorter_sides[index], self.longer_side))


@dataclass(frozen=True)
class ResizeRange:
    """Resize to a scale between two, keeping the aspect ratio.

    Args:
        shorter_side: smallest and largest limit of the shorter side in pixels.
        longer_side: smallest and largest limit of the longer side in pixels.
    """

    shorter_side: tuple[int, int]
    longer_side: tuple[int, int]

    def __call__(self, frame: AugmentedFrame, rng: RandomSource) -> AugmentedFrame:
        """Draw the limit of the longer side, then that of the shorter one, and resize."""
        longer, shorter = (int(rng.randint(low, high + 1)) for low, high in (self.longer_side, self.shorter_side))
        return resized(frame, (shorter, longer))


def cropped(frame: AugmentedFrame, top: int, left: int, size_hw: tuple[int, int]) -> AugmentedFrame:
    """Cut a rectangle out; objects whose boxes lie outside are dropped, the others cut at its border."""
    rows, columns = slice(top, top + size_hw[0]), slice(left, left + size_hw[1])
    pixels = frame.pixels[rows, columns]
    shift = np.array([left, top] * 2, dtype=np.float32)
    boxes = _clipped(frame.boxes - shift, (pixels.shape[0], pixels.shape[1]))
    keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return AugmentedFrame(pixels, boxes[keep], frame.objects[keep], frame.rows[rows], frame.columns[columns])


@dataclass(frozen=True)
class Crop:
    """Cut a rectangle of random size out at a random place.

    Args:
        shortest: smallest height and width in pixels; smaller images are kept whole in that direction.
        longest: largest height and width in pixels.
        allow_empty: keep a crop that shows no object; otherwise the image is rejected.
    """

    shortest: int
    longest: int
    allow_empty: bool

    def __call__(self, frame: AugmentedFrame, rng: RandomSource) -> AugmentedFrame | None:
        """Draw height, width, top and left, and cut."""
        height, width = frame.size_hw
        crop_h, crop_w = (
            int(rng.randint(min(side, self.shortest), min(side, self.longest) + 1)) for side in (height, width)
        )
        top, left = int(rng.randint(0, height - crop_h + 1)), int(rng.randint(0, width - crop_w + 1))
        result = cropped(frame, top, left, (crop_h, crop_w))
        return result if len(result.objects) or self.allow_empty else None


@dataclass(frozen=True)
class CropFraction:
    """Cut out a fraction of the image, for data sets of any size; a crop that would lose every object is not made.

    Args:
        smallest: smallest fraction of the height and of the width, above 0 and at most 1.
        probability: how often, 0..1.
        min_visible: objects of whose box less than this fraction is left are dropped, 0..1.
    """

    smallest: float
    probability: float = 1.0
    min_visible: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ValueError(f"smallest must lie above 0 and at most at 1, given {self.smallest}")

    def __call__(self, frame: AugmentedFrame, rng: RandomSource) -> AugmentedFrame:
        """Draw whether, then height, width, top and left, and cut."""
        if rng.random_sample() >= self.probability:
            return frame
        fractions = self.smallest + rng.random_sample(2) * (1 - self.smallest)
        size = tuple(max(1, round(side * fraction)) for side, fraction in zip(frame.size_hw, fractions, strict=True))
        top, left = (int(rng.randint(0, side - own + 1)) for side, own in zip(frame.size_hw, size, strict=True))
        result = cropped(frame, top, left, (size[0], size[1]))
        before = _areas(frame.boxes[np.searchsorted(frame.objects, result.objects)])
        keep = _areas(result.boxes) >= self.min_visible * before
        if not keep.any():
            return frame
        return result._replace(boxes=result.boxes[keep], objects=result.objects[keep])


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


@dataclass(frozen=True)
class OneOf:
    """Run one of several pipelines, each with the same chance."""

    choices: tuple[Pipeline, ...]

    def __call__(self, frame: AugmentedFrame, rng: RandomSource) -> AugmentedFrame | None:
        """Draw the pipeline and run it."""
        return run(self.choices[int(rng.choice(len(self.choices)))], frame, rng)


def run(pipeline: Sequence[Step], frame: AugmentedFrame, rng: RandomSource) -> AugmentedFrame | None:
    """Run steps one after the other; None as soon as one rejects the image."""
    for step in pipeline:
        changed = step(frame, rng)
        if changed is None:
            return None
        frame = changed
    return frame


def augment(sample: Sample[ObjectTargets], pipeline: Sequence[Step], rng: RandomSource) -> TrainingView | None:
    """Make a training view of an image by the steps of a pipeline, for example one of `PIPELINES`.

    Every draw comes from `rng`. A pipeline may reject an image (None), then another one is to be taken.
    """
    target, size_hw = sample.target, (sample.image.height, sample.image.width)
    pixels, numbers = torch.from_numpy(pixels_of(sample.image)), map(np.arange, (len(target), *size_hw))
    frame = run(pipeline, AugmentedFrame(pixels, target.boxes_xyxy.numpy(), *numbers), rng)
    if frame is None:
        return None
    masks = None
    if target.masks is not None:
        whole = target.masks[frame.objects.tolist()].to_bool().numpy()
        masks = torch.from_numpy(whole.take(frame.columns, axis=2).take(frame.rows, axis=1))
    labels = target.labels[torch.from_numpy(frame.objects)]
    boxes = torch.from_numpy(np.ascontiguousarray(frame.boxes))
    return TrainingView(frame.pixels.contiguous(), boxes, labels, masks, size_hw, sample.name)
