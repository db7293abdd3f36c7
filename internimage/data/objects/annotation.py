"""What is known about the objects of one image, and how a training step sees it.

Shape legend: G objects of an image, K classes, H W image size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from internimage.types import RunLengthMasks


@dataclass(frozen=True)
class ObjectTargets:
    """What a detector should find in one image, before augmentation.

    Args:
        boxes_xyxy: (G, 4) float32 corners in pixels of the image as it is read.
        labels: (G,) int64 class indices, from 0.
        masks: one mask for each object, or None in data sets without masks.
        ignored_boxes_xyxy: (I, 4) float32 regions that hold objects which are not marked one by one (crowds), or that
            need not be found (difficult objects): no examples. The published losses see background in them.
    """

    boxes_xyxy: Tensor
    labels: Tensor
    masks: RunLengthMasks | None
    ignored_boxes_xyxy: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageAnnotation:
    """Everything that a data set says about one image: what metrics compare with.

    Args:
        image_id: the data set's own number or name of the image.
        size_hw: (height, width) of the image in pixels.
        boxes_xyxy: (G, 4) float64 corners in pixels.
        labels: (G,) int64 class indices, from 0.
        is_special: (G,) bool boxes that are no single object to be found: crowds (COCO), groups (OpenImages), difficult
            objects (VOC), ignored regions (CrowdHuman).
        areas: (G,) float64 areas in square pixels; those of the masks where the data set gives them.
        segmentations: masks in the form of COCO for each object, or None without masks.
        lost_masks: (G,) bool objects whose mask is broken: a region, for metrics of masks, that need not be found; its
            entry in `segmentations` is the box. None where there is no such object.
        is_ignored: (G,) bool special objects that carry the key "ignore" of files in the form of COCO, which the COCO
            tools do not read, and are no crowd; None where there is no such object.
        negative_labels: classes known to be absent (LVIS), or that were checked (OpenImages).
        incomplete_labels: classes of which only some objects are marked (LVIS).
    """

    image_id: int | str
    size_hw: tuple[int, int]
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    is_special: np.ndarray
    areas: np.ndarray
    segmentations: tuple[Any, ...] | None = None
    negative_labels: frozenset[int] = frozenset()
    incomplete_labels: frozenset[int] = frozenset()
    lost_masks: np.ndarray | None = None
    is_ignored: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> ImageAnnotation:
        """Return the same image with the objects of these indices, in this order."""
        fields = ("boxes_xyxy", "labels", "is_special", "areas", "lost_masks", "is_ignored")
        arrays = {name: value[rows] for name in fields if (value := getattr(self, name)) is not None}
        masks = None if self.segmentations is None else tuple(self.segmentations[i] for i in rows.tolist())
        return replace(self, segmentations=masks, **arrays)
