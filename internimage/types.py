"""What travels between the stations: images, maps and results.

Shape legend: N images, H W map or image size, C channels, K classes, R found objects, G true objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from torch import Tensor

Palette = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Images:
    """A normalized, padded batch and what is needed to lead results back to the original images.

    Args:
        pixels: (N, 3, H, W) float, normalized RGB, padded at the right and the bottom.
        valid_hw: (N, 2) int64, height and width in pixels before padding.
        original_hw: (height, width) of each image as it was read, in pixels.
        metadata: (N, M) float side information that some classifiers take, or None.
    """

    pixels: Tensor
    valid_hw: Tensor
    original_hw: tuple[tuple[int, int], ...]
    metadata: Tensor | None = None

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Images:
        """Return the batch on `device`; `dtype` converts the floating tensors only."""
        metadata = None if self.metadata is None else self.metadata.to(device, dtype)
        return Images(self.pixels.to(device, dtype), self.valid_hw.to(device), self.original_hw, metadata)


class Features(NamedTuple):
    """The maps of a backbone, fine to coarse: `maps[i]` is (N, C_i, H_i, W_i), channels-last in memory."""

    maps: tuple[Tensor, ...]


@dataclass(frozen=True)
class Classification:
    """The prediction of a classifier for one image.

    Args:
        scores: (K,) float32 probabilities on the CPU, summing to 1.
        class_names: K names, or None when the checkpoint has none (then the index is the name).
        original_hw: (height, width) of the image in pixels.
    """

    scores: Tensor
    class_names: tuple[str, ...] | None = None
    original_hw: tuple[int, int] = (0, 0)

    @property
    def label(self) -> int:
        """Index of the most probable class."""
        return int(self.scores.argmax())

    @property
    def score(self) -> float:
        """Probability of the most probable class, 0..1."""
        return float(self.scores.max())

    @property
    def name(self) -> str:
        """Name of the most probable class."""
        return self.class_name(self.label)

    def class_name(self, index: int) -> str:
        """Name of class `index`; the number itself where the checkpoint has no names."""
        return str(index) if self.class_names is None else self.class_names[index]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the `k` most probable classes as (name, probability), best first; `k` is cut to K.

        Raises:
            ValueError: `k` is below 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, given {k}")
        scores, indices = self.scores.topk(min(k, self.scores.numel()))
        return [(self.class_name(int(i)), float(s)) for s, i in zip(scores, indices, strict=True)]

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        """Return a JSON-ready summary with the `k` best classes."""
        return {
            "label": self.label,
            "name": self.name,
            "score": round(self.score, 6),
            "top": [{"name": name, "score": round(score, 6)} for name, score in self.top(k)],
        }


@dataclass(frozen=True)
class Segmentation:
    """The prediction of a semantic segmentor for one image.

    Args:
        label_map: (H, W) class index of every pixel of the original image, on the CPU; uint8, int16 beyond 256
            classes.
        num_classes: K.
        class_names: K names, or None when the checkpoint has none (then the index is the name).
        palette: K colors (red, green, blue) 0..255, or None.
        probabilities: (K, H, W) float32 on the CPU, summing to 1 over the classes; None unless asked for.
    """

    label_map: Tensor
    num_classes: int
    class_names: tuple[str, ...] | None = None
    palette: Palette | None = None
    probabilities: Tensor | None = None

    @property
    def original_hw(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return (self.label_map.shape[0], self.label_map.shape[1])

    @property
    def pixel_counts(self) -> Tensor:
        """(K,) int64 number of pixels of each class."""
        counts = torch.zeros(self.num_classes, dtype=torch.int64)
        for rows in self.label_map.split(1024):  # by strips: counting needs wide integers
            counts += torch.bincount(rows.flatten().long(), minlength=self.num_classes)
        return counts

    def class_name(self, index: int) -> str:
        """Name of class `index`; the number itself where the checkpoint has no names."""
        return str(index) if self.class_names is None else self.class_names[index]

    def areas(self) -> list[tuple[str, float]]:
        """Return the classes in the image as (name, fraction of its pixels 0..1), largest first."""
        return [(self.class_name(i), fraction) for i, _, fraction in self._present()]

    def to_image(self) -> PIL.Image.Image:
        """Return the label map as an image whose pixel values are the class indices; save it as PNG.

        With a palette, and up to 256 classes, viewers show its colors; beyond 256 classes it has 16 bits.
        """
        if self.label_map.dtype != torch.uint8:
            return PIL.Image.fromarray(self.label_map.to(torch.uint16).numpy())
        image = PIL.Image.fromarray(self.label_map.numpy())
        if self.palette is not None:
            image.putpalette([value for color in self.palette for value in color])
        return image

    def to_dict(self, k: int | None = None) -> dict[str, Any]:
        """Return a JSON-ready summary: the size and the `k` largest classes with their areas, None for all of them."""
        rows = [
            {"label": i, "name": self.class_name(i), "pixels": pixels, "share": round(fraction, 6)}
            for i, pixels, fraction in self._present()[:k]
        ]
        return {"size_hw": list(self.original_hw), "classes": rows}

    def _present(self) -> list[tuple[int, int, float]]:
        """Index, pixels and fraction of every class in the image, largest first."""
        counts = self.pixel_counts
        order = counts.argsort(descending=True, stable=True)
        return [(int(i), int(counts[i]), float(counts[i]) / self.label_map.numel()) for i in order if counts[i]]


@dataclass(frozen=True)
class RunLengthMasks:
    """Binary masks of one image as run lengths, the form of COCO: small whatever the size of the image.

    Args:
        counts: for each mask, int64 lengths of alternating runs of 0 and 1, beginning with 0, column by column.
        size_hw: (height, width) of the image in pixels.
    """

    counts: tuple[Tensor, ...]
    size_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, indices: Sequence[int]) -> RunLengthMasks:
        return RunLengthMasks(tuple(self.counts[i] for i in indices), self.size_hw)

    @property
    def areas(self) -> Tensor:
        """Return the (R,) int64 pixels of each mask."""
        return torch.tensor([int(runs[1::2].sum()) for runs in self.counts], dtype=torch.int64)

    def to_bool(self) -> Tensor:
        """Return (R, H, W) bool masks; R * H * W bytes."""
        height, width = self.size_hw
        masks = torch.zeros(len(self.counts), width, height, dtype=torch.bool)
        for mask, runs in zip(masks, self.counts, strict=True):
            values = torch.arange(runs.numel()) % 2 == 1
            mask.view(-1).copy_(values.repeat_interleave(runs))
        return masks.transpose(1, 2)

    def sampled(self, rows: np.ndarray, columns: np.ndarray) -> Iterator[np.ndarray]:
        """Give each mask at some rows and columns only, (len(rows), len(columns)) bool, without making it whole."""
        places = columns[None, :] * self.size_hw[0] + rows[:, None]
        for runs in self.counts:
            yield np.searchsorted(runs.cumsum(0).numpy(), places, side="right") % 2 == 1

    def to_coco(self) -> list[dict[str, Any]]:
        """Return each mask as {"size": [H, W], "counts": text}, the compressed form of the COCO tools."""
        return [{"size": list(self.size_hw), "counts": _compressed(runs.tolist())} for runs in self.counts]


def _compressed(runs: list[int]) -> str:
    """Write run lengths as text: differences to the run before the last, five bits a letter, low bits first."""
    letters: list[str] = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            bits = value & 31
            value >>= 5
            is_last = value == (-1 if bits & 16 else 0)
            letters.append(chr(48 + bits + (0 if is_last else 32)))
            if is_last:
                break
    return "".join(letters)


@dataclass(frozen=True)
class Detections:
    """The objects that a detector found in one image, best first.

    Args:
        boxes_xyxy: (R, 4) float32 corners in pixels of the original image, on the CPU.
        scores: (R,) float32, 0..1.
        labels: (R,) int64 class indices, from 0.
        class_names: names of all classes, or None when the checkpoint has none (then the number is the name).
        original_hw: (height, width) of the image in pixels.
        run_length_masks: one mask for each box, or None from detectors without masks.

    Raises:
        ValueError: the fields do not fit one another.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    labels: Tensor
    class_names: tuple[str, ...] | None = None
    original_hw: tuple[int, int] = (0, 0)
    run_length_masks: RunLengthMasks | None = None

    def __post_init__(self) -> None:
        number = len(self.scores)
        masks = number if self.run_length_masks is None else len(self.run_length_masks)
        if tuple(self.boxes_xyxy.shape) != (number, 4) or len(self.labels) != number or masks != number:
            raise ValueError(
                f"expected {number} boxes, labels and masks like the scores, given boxes "
                f"{tuple(self.boxes_xyxy.shape)}, {len(self.labels)} labels and {masks} masks"
            )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """Name of the class of each object."""
        return [str(i) if self.class_names is None else self.class_names[i] for i in self.labels.tolist()]

    @property
    def masks(self) -> Tensor | None:
        """(R, H, W) bool masks of the original image, made on request, or None without masks."""
        return None if self.run_length_masks is None else self.run_length_masks.to_bool()

    def select(self, indices: Tensor) -> Detections:
        """Return the objects at int64 `indices`, or those where a bool tensor (R,) is true."""
        chosen = indices.nonzero().flatten() if indices.dtype == torch.bool else indices
        masks = None if self.run_length_masks is None else self.run_length_masks[chosen.tolist()]
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            run_length_masks=masks,
        )

    def filter(
        self, *, score_threshold: float = 0.0, classes: Sequence[int | str] | None = None, limit: int | None = None
    ) -> Detections:
        """Return a part of the objects, in the same order.

        Args:
            score_threshold: lowest score kept, 0..1.
            classes: names or numbers of the classes kept, None for all.
            limit: how many objects are kept at most, None for all.

        Raises:
            ValueError: a class is unknown.

        Example:
            >>> found = Detections(torch.zeros(2, 4), torch.tensor([0.9, 0.2]), torch.tensor([1, 0]), ("cat", "dog"))
            >>> found.filter(score_threshold=0.5).names
            ['dog']
        """
        keep = self.scores >= score_threshold
        if classes is not None:
            numbers = torch.tensor([self._number(name) for name in classes], dtype=torch.int64)
            keep &= torch.isin(self.labels, numbers)
        return self.select(keep.nonzero().flatten()[:limit])

    def _number(self, name: int | str) -> int:
        if isinstance(name, int):
            return name
        if self.class_names is None or name not in self.class_names:
            raise ValueError(
                f"unknown class {name!r}; known are {', '.join((self.class_names or ())[:20]) or 'numbers'}"
            )
        return self.class_names.index(name)

    def to_dict(self, *, masks: bool = False) -> dict[str, Any]:
        """Return JSON types; `masks` adds each mask in the compressed form of the COCO tools."""
        texts = self.run_length_masks.to_coco() if masks and self.run_length_masks is not None else None
        objects: list[dict[str, Any]] = []
        rows = zip(self.labels.tolist(), self.names, self.scores.tolist(), self.boxes_xyxy.tolist(), strict=True)
        for i, (label, name, score, box) in enumerate(rows):
            entry = {"label": label, "name": name, "score": round(score, 6), "box_xyxy": [round(x, 2) for x in box]}
            objects.append(entry if texts is None else {**entry, "mask": texts[i]})
        return {"original_hw": list(self.original_hw), "objects": objects}

    def to_coco(self, image_id: int, *, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return the objects as entries of a COCO results file.

        Args:
            image_id: number of the image in the data set.
            category_ids: the data set's number of each class, None for 0, 1, 2, ...
        """
        texts = None if self.run_length_masks is None else self.run_length_masks.to_coco()
        rows = zip(self.labels.tolist(), self.scores.tolist(), self.boxes_xyxy.tolist(), strict=True)
        entries: list[dict[str, Any]] = []
        for i, (label, score, (left, top, right, bottom)) in enumerate(rows):
            entry: dict[str, Any] = {
                "image_id": image_id,
                "category_id": label if category_ids is None else int(category_ids[label]),
                "bbox": [left, top, right - left, bottom - top],
                "score": score,
            }
            entries.append(entry if texts is None else {**entry, "segmentation": texts[i]})
        return entries


@dataclass(frozen=True)
class DetectionTargets:
    """What a detector should find in one image of a training batch.

    Args:
        boxes_xyxy: (G, 4) float corners in pixels of the batch (after resizing, before padding moves nothing).
        labels: (G,) int64 class indices, from 0.
        masks: (G, H, W) bool or uint8 masks of the padded batch, or None for detectors without masks.
    """

    boxes_xyxy: Tensor
    labels: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> DetectionTargets:
        """Return the targets on `device`."""
        masks = None if self.masks is None else self.masks.to(device)
        return DetectionTargets(self.boxes_xyxy.to(device), self.labels.to(device), masks)
