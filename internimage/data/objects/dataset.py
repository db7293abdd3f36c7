"""Images with boxes, and masks where there are any: one class for every annotation format.

Shape legend: N images, G objects of an image, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from internimage.data.dataset import Sample, SampleSource
from internimage.data.images.image_file import is_turned
from internimage.data.images.raster import RGB, Reading
from internimage.data.images.read import image_size, read_image
from internimage.data.objects.annotation import ImageAnnotation, ObjectTargets
from internimage.data.objects.table import SIZE_UNKNOWN, AnnotationTable, ObjectStates
from internimage.data.untrusted.problems import Problem

MIN_TRAINING_SIDE = 32  # pixels; the original leaves smaller images out of training


class DetectionDataset:
    """Images and their objects; `dataset[i]` is a `Sample[ObjectTargets]`.

    Args:
        name: what messages call it, as a rule the annotation file.
        class_names: K names, in the order of the class indices.
        table: the annotations.
        category_ids: the data set's own number of each class, for results files; None for 0 .. K - 1.
        frequencies: for LVIS "r" (rare), "c" (common) or "f" (frequent) for each class, else None.
        ancestors: for OpenImages (K, K) bool, row c marks class c and everything above it, else None.
        problems: broken annotations that were left out.
    """

    reading: Reading = RGB

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        table: AnnotationTable,
        *,
        category_ids: Sequence[int] | None = None,
        frequencies: Sequence[str] | None = None,
        ancestors: np.ndarray | None = None,
        problems: tuple[Problem, ...] = (),
    ) -> None:
        self.name = name
        self.class_names = tuple(class_names)
        self.category_ids = tuple(range(len(class_names)) if category_ids is None else category_ids)
        self.frequencies = None if frequencies is None else tuple(frequencies)
        self.ancestors = ancestors
        self.problems = problems
        self._table = table
        self._rows = np.arange(len(table))
        self.has_masks = table.has_masks

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample[ObjectTargets]:
        row = self._row(index)
        file = self._table.files[row]
        image = read_image(file, self.reading)
        size_hw, known = (image.height, image.width), self._table.size_hw(row)
        if known not in (SIZE_UNKNOWN, size_hw):
            raise ValueError(size_mismatch(file, size_hw, known))
        self._table.set_size(row, size_hw)
        try:
            return Sample(image, self._table.targets(row, size_hw, with_masks=self.has_masks), str(file))
        except ValueError as error:
            raise ValueError(f"{self.name}, image {file.name}: {error}") from error

    def annotation(self, index: int) -> ImageAnnotation:
        """Return what metrics compare with; the pixels of the image are not read."""
        return self._table.annotation(self._row(index), self.size_hw(index), with_masks=self.has_masks)

    def file(self, index: int) -> Path:
        """Return the file of an image."""
        return self._table.files[self._row(index)]

    def source(self, index: int) -> SampleSource:
        """Return the file of an image, and everything that is annotated in it."""
        row = self._row(index)
        return SampleSource(self._table.files[row], self._table.content(row))

    def size_hw(self, index: int) -> tuple[int, int]:
        """Return (height, width) of an image in pixels; where the annotations do not say it, its header is read.

        Raises:
            BadImage: a ValueError; the header cannot be read.
        """
        row = self._row(index)
        if self._table.size_hw(row) == SIZE_UNKNOWN:
            self._table.set_size(row, image_size(self._table.files[row]))
        return self._table.size_hw(row)

    def annotated_size(self, index: int) -> tuple[int, int] | None:
        """Return (height, width) of an image as the annotations state it, None where they do not."""
        size_hw = self._table.size_hw(self._row(index))
        return None if size_hw == SIZE_UNKNOWN else size_hw

    def labels(self, index: int) -> np.ndarray:
        """Return the (G,) int64 classes of an image, those of ignored objects included, without reading anything."""
        return self._table.labels(self._row(index))

    def states(self) -> ObjectStates:
        """Return what the objects of the data set are, without reading anything."""
        return self._table.states(self._rows)

    def num_examples(self, index: int) -> int:
        """Return how many objects of an image training learns from; where its size is not known, its header is read.

        Raises:
            BadImage: a ValueError; the header cannot be read.
        """
        return self._table.num_examples(self._row(index), self.size_hw(index))

    def select(self, indices: Sequence[int] | np.ndarray) -> DetectionDataset:
        """Return some images of the data set, in a given order; an image may be named more than once."""
        changed = copy.copy(self)
        changed._rows = self._rows[np.asarray(indices, dtype=np.int64)]
        return changed

    def without_masks(self) -> DetectionDataset:
        """Return the same images with boxes only: those whose mask is broken are examples, too."""
        changed = copy.copy(self)
        changed.has_masks = False
        return changed

    def for_training(self) -> DetectionDataset:
        """Return the images that training uses: at least one annotated object, sides of at least 32 pixels.

        An object that is ignored, or too small to be learned, keeps its image in, as in the original. Images whose
        size is not known yet are kept.

        Raises:
            ValueError: nothing is left.
        """
        has_object = [i for i, row in enumerate(self._rows.tolist()) if self._table.has_entry[row]]
        keep = [i for i in has_object if min(self.annotated_size(i) or (MIN_TRAINING_SIDE,)) >= MIN_TRAINING_SIDE]
        if not keep:
            raise ValueError(self._nothing_left(len(has_object)))
        return self.select(keep)

    def _nothing_left(self, num_with_objects: int) -> str:
        """Say why no image is left for training."""
        reasons = [f"{len(self) - num_with_objects} of {len(self)} images have no annotated object of a known class"]
        if num_with_objects:
            reasons.append(f"{num_with_objects} images are smaller than {MIN_TRAINING_SIDE} pixels a side")
        if self.problems:
            reasons.append(f"{len(self.problems)} broken annotations are left out, the first one: {self.problems[0]}")
        return f"{self.name} has no image with an annotated object to train on: {'; '.join(reasons)}"

    def to_coco(self) -> dict[str, Any]:
        """Return the annotations as a COCO document; where sizes are not known, headers of images are read."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(len(self)):
            annotation = self.annotation(index)
            height, width = annotation.size_hw
            name = self.file(index).name
            images.append({"id": annotation.image_id, "file_name": name, "height": height, "width": width})
            corners, is_ignored = annotation.boxes_xyxy, annotation.is_ignored
            is_crowd = annotation.is_special if is_ignored is None else annotation.is_special & ~is_ignored
            sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
            for i, label in enumerate(annotation.labels.tolist()):
                entry = {
                    "id": len(annotations) + 1,
                    "image_id": annotation.image_id,
                    "category_id": self.category_ids[label],
                    "bbox": sides[i],
                    "area": float(annotation.areas[i]),
                    "iscrowd": int(is_crowd[i]),
                }
                if is_ignored is not None:
                    entry["ignore"] = int(is_ignored[i])
                if annotation.segmentations is not None:
                    entry["segmentation"] = annotation.segmentations[i]
                annotations.append(entry)
        names = zip(self.category_ids, self.class_names, strict=True)
        categories = [{"id": number, "name": name} for number, name in names]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _row(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, index {index} is none of them")
        return int(self._rows[index])


def size_mismatch(file: Path, size_hw: tuple[int, int], annotated: tuple[int, int]) -> str:
    """Say that an image has another (height, width) than its annotation, and why where the camera turned it."""
    text = f"{file}: the image is (height, width) {size_hw}, but annotated as {annotated}"
    if annotated != size_hw[::-1] or not is_turned(file):
        return text
    return (
        f"{text}: width and height are swapped, since the EXIF orientation of the file turns the image upright. If "
        "the boxes were drawn in the upright image, write its size into the annotations; if they were drawn in the "
        "image as it is stored, save it without the EXIF orientation"
    )
