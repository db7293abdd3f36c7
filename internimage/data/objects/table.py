"""The annotations of a whole data set in flat arrays: millions of boxes fit into memory.

Shape legend: N images, A objects of all images together, G objects of one.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from internimage.data.objects.annotation import ImageAnnotation, ObjectTargets
from internimage.data.objects.segmentations import Segmentation, box_corners, decode, to_coco_form

SPECIAL, LEARNABLE, IGNORED = 1, 2, 4
MIN_LEARNABLE_SIDE = 1.0  # pixels; smaller boxes are no examples, as in the original
SIZE_UNKNOWN = (0, 0)


@dataclass(frozen=True)
class ObjectStates:
    """What the objects of some images are.

    Args:
        labels: (A,) int64 classes.
        is_special: (A,) bool, see `ImageAnnotation`.
        is_learnable: (A,) bool examples for training, before boxes that are fractions are compared with sizes.
        largest_side: the largest coordinate of a box; 0 where there is none.
        is_relative: boxes are fractions of the image.
    """

    labels: np.ndarray
    is_special: np.ndarray
    is_learnable: np.ndarray
    largest_side: float
    is_relative: bool


class _Objects(NamedTuple):
    """The objects of one image, in pixels."""

    boxes: np.ndarray  # (G, 4) float64 corners
    masks: list[Segmentation | None]  # None in place of one that is broken or not there
    flags: np.ndarray  # (G,) uint8


class AnnotationTable:
    """Images and their objects, filled image by image.

    Args:
        is_relative: boxes and polygons are fractions of the image's width and height, 0..1, instead of pixels.
    """

    def __init__(self, *, is_relative: bool = False) -> None:
        self.is_relative = is_relative
        self.files: list[Path] = []
        self.image_ids: list[int | str] = []
        self.negative_labels: dict[int, frozenset[int]] = {}
        self.incomplete_labels: dict[int, frozenset[int]] = {}
        self.has_entry: list[bool] = []  # a known class was annotated, whatever became of the object
        self._sizes = array("q")
        self._boxes = array("d")
        self._areas = array("d")
        self._labels = array("q")
        self._flags = array("B")
        self._segmentations: list[Segmentation | None] = []
        self._starts = array("q", [0])
        self.num_masks = 0
        self.num_lost_masks = 0

    def __len__(self) -> int:
        return len(self.files)

    def begin(self, file: Path, image_id: int | str, size_hw: tuple[int, int] = SIZE_UNKNOWN) -> int:
        """Start an image and return its index; (0, 0) says that its size is not known yet."""
        self.files.append(file)
        self.image_ids.append(image_id)
        self.has_entry.append(False)
        self._sizes.extend(size_hw)
        self._starts.append(len(self._labels))
        return len(self.files) - 1

    def add(
        self,
        box_xyxy: Sequence[float],
        label: int,
        *,
        is_special: bool = False,
        is_learnable: bool = True,
        is_ignored: bool = False,
        area: float = float("nan"),
        segmentation: Segmentation | None = None,
        lost_mask: bool = False,
    ) -> None:
        """Add an object to the image begun last.

        Args:
            box_xyxy: corners.
            label: class index, from 0.
            is_special: see `ImageAnnotation`.
            is_learnable: the box is an example for training.
            is_ignored: see `ImageAnnotation`.
            area: in square pixels, NaN where the box tells it.
            segmentation: the mask, None without one.
            lost_mask: the file has a mask of it, but a broken one.
        """
        self._boxes.extend(box_xyxy)
        self._areas.append(area)
        self._labels.append(label)
        self._flags.append(is_special * SPECIAL | is_learnable * LEARNABLE | is_ignored * IGNORED)
        self._segmentations.append(segmentation)
        self.num_masks += segmentation is not None
        self.num_lost_masks += lost_mask
        self._starts[-1] = len(self._labels)

    def boxes_as_masks(self) -> None:
        """Give the objects without a mask the four corners of their boxes as one."""
        for i, entry in enumerate(self._segmentations):
            if entry is None:
                self._segmentations[i] = (box_corners(self._boxes[4 * i : 4 * i + 4]),)
                self.num_masks += 1

    @property
    def num_objects(self) -> int:
        """A, ignored objects included."""
        return len(self._labels)

    @property
    def has_masks(self) -> bool:
        """Whether every object has a mask, broken ones aside."""
        return self.num_masks > 0 and self.num_masks + self.num_lost_masks == self.num_objects

    def size_hw(self, image: int) -> tuple[int, int]:
        """Return (height, width) of an image in pixels, `SIZE_UNKNOWN` where it is not known yet."""
        return (self._sizes[2 * image], self._sizes[2 * image + 1])

    def set_size(self, image: int, size_hw: tuple[int, int]) -> None:
        """Keep the size of an image that was looked up."""
        self._sizes[2 * image], self._sizes[2 * image + 1] = size_hw

    def labels(self, image: int) -> np.ndarray:
        """Return the classes of the objects of an image, ignored ones included."""
        return np.array(self._labels[self._starts[image] : self._starts[image + 1]], dtype=np.int64)

    def states(self, images: np.ndarray) -> ObjectStates:
        """Return what the objects of some images are, each image once."""
        is_wanted = np.zeros(len(self), dtype=bool)
        is_wanted[images] = True
        chosen = np.repeat(is_wanted, np.diff(np.array(self._starts, dtype=np.int64)))  # (A,)
        flags = np.array(self._flags, dtype=np.uint8)[chosen]
        boxes = np.array(self._boxes, dtype=np.float64).reshape(-1, 4)[chosen]
        return ObjectStates(
            np.array(self._labels, dtype=np.int64)[chosen],
            flags & SPECIAL > 0,
            flags & LEARNABLE > 0,
            float(boxes.max(initial=0.0)),
            self.is_relative,
        )

    def content(self, image: int) -> bytes:
        """Return what is annotated in an image, as bytes that differ where annotations do."""
        start, end = self._starts[image], self._starts[image + 1]
        parts = [repr(self.image_ids[image]).encode(), self._boxes[4 * start : 4 * end].tobytes()]
        parts += [values[start:end].tobytes() for values in (self._areas, self._labels, self._flags)]
        for labels in (self.negative_labels, self.incomplete_labels):
            if image in labels:
                parts.append(repr(sorted(labels[image])).encode())
        for mask in self._segmentations[start:end]:
            pieces = mask if isinstance(mask, tuple) else (mask,)
            parts += [piece.tobytes() if isinstance(piece, np.ndarray) else repr(piece).encode() for piece in pieces]
        return b"|".join(parts)

    def num_examples(self, image: int, size_hw: tuple[int, int]) -> int:
        """Return how many objects of an image training learns from."""
        return int(self._is_learnable(self._objects(image, size_hw)).sum())

    def targets(self, image: int, size_hw: tuple[int, int], *, with_masks: bool) -> ObjectTargets:
        """Return the view of training: examples with decoded masks, and ignored boxes apart.

        With masks, an object whose mask is broken is no example, but ignored.
        """
        objects = self._objects(image, size_hw)
        learnable, masks = self._is_learnable(objects), None
        is_ignored = (objects.flags & SPECIAL > 0) & ~learnable
        if with_masks:
            has_mask = np.array([mask is not None for mask in objects.masks], dtype=bool)
            is_ignored |= learnable & ~has_mask
            learnable &= has_mask
            chosen = (objects.masks[i] for i in np.flatnonzero(learnable))
            masks = decode([mask for mask in chosen if mask is not None], size_hw)
        boxes, labels = objects.boxes.astype(np.float32), self.labels(image)
        arrays = (boxes[learnable], labels[learnable], boxes[is_ignored])
        examples, classes, ignored = map(torch.from_numpy, arrays)
        return ObjectTargets(examples, classes, masks, ignored)

    def annotation(self, image: int, size_hw: tuple[int, int], *, with_masks: bool) -> ImageAnnotation:
        """Return the view of metrics."""
        boxes, masks, flags = self._objects(image, size_hw)
        areas = np.array(self._areas[self._starts[image] : self._starts[image + 1]], dtype=np.float64)
        is_ignored, is_lost = flags & IGNORED > 0, np.array([mask is None for mask in masks], dtype=bool)
        shown = ((box_corners(box),) if mask is None else mask for mask, box in zip(masks, boxes.tolist(), strict=True))
        return ImageAnnotation(
            self.image_ids[image],
            size_hw,
            boxes,
            self.labels(image),
            flags & SPECIAL > 0,
            np.where(np.isnan(areas), np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1), areas),
            tuple(to_coco_form(mask, size_hw) for mask in shown) if with_masks else None,
            self.negative_labels.get(image, frozenset()),
            self.incomplete_labels.get(image, frozenset()),
            is_lost if with_masks and is_lost.any() else None,
            is_ignored if is_ignored.any() else None,
        )

    def _objects(self, image: int, size_hw: tuple[int, int]) -> _Objects:
        start, end = self._starts[image], self._starts[image + 1]
        boxes = np.array(self._boxes[4 * start : 4 * end], dtype=np.float64).reshape(-1, 4)
        masks = self._segmentations[start:end]
        if self.is_relative:
            scale = np.array([size_hw[1], size_hw[0]], dtype=np.float64)
            boxes = boxes * np.tile(scale, 2)
            masks = [None if mask is None else _scaled(mask, scale) for mask in masks]
        return _Objects(boxes, masks, np.array(self._flags[start:end], dtype=np.uint8))

    def _is_learnable(self, objects: _Objects) -> np.ndarray:
        """Mark the examples for training; the size of boxes in pixels is known since they were added."""
        is_learnable = objects.flags & LEARNABLE > 0
        if self.is_relative:
            sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
            is_learnable &= sides.min(axis=1, initial=np.inf) >= MIN_LEARNABLE_SIDE
        return is_learnable


def _scaled(mask: Segmentation, scale: np.ndarray) -> Segmentation:
    assert isinstance(mask, tuple), "fractions of an image are written as polygons only"
    return tuple(polygon * scale for polygon in mask)
