"""From raw outputs to `Detections` in the coordinates of the original images.

Shape legend: N images, R objects of all images, S side of a mask's probability map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from internimage.ops.boxes import clip_boxes
from internimage.ops.masks import paste_masks
from internimage.types import Detections, Images


class RawDetections(NamedTuple):
    """What a detector's graph gives: the objects of all images, best first within each image."""

    boxes: Tensor  # (R, 4) corners in pixels of the network's input
    scores: Tensor  # (R,) 0..1
    labels: Tensor  # (R,) int64
    image: Tensor  # (R,) int64 number of the image
    mask_probabilities: Tensor | None = None  # (R, S, S), 0..1, inside of the box

    @classmethod
    def join(cls, parts: Sequence[RawDetections]) -> RawDetections:
        """Put the objects of one or more parts one behind the other; `image` stays as it is."""
        masks = [part.mask_probabilities for part in parts if part.mask_probabilities is not None]
        return cls(
            torch.cat([part.boxes for part in parts]),
            torch.cat([part.scores for part in parts]),
            torch.cat([part.labels for part in parts]),
            torch.cat([part.image for part in parts]),
            torch.cat(masks) if masks else None,
        )

    def select(self, index: Tensor) -> RawDetections:
        """Return the objects with these (S,) numbers, in this order."""
        masks = None if self.mask_probabilities is None else self.mask_probabilities[index]
        return RawDetections(self.boxes[index], self.scores[index], self.labels[index], self.image[index], masks)


class Rows(NamedTuple):
    """The objects of a batch in rows of one number D for each image, behind the objects zeros (labels -1)."""

    boxes: Tensor  # (N, D, 4)
    scores: Tensor  # (N, D)
    labels: Tensor  # (N, D) int64
    counts: Tensor  # (N,) int64 number of objects
    mask_probabilities: Tensor | None = None  # (N, D, S, S)

    @classmethod
    def of(cls, found: RawDetections, number: int, rows: int) -> Rows:
        """Put the objects of `number` images, of which none has more than `rows`, into rows."""
        images = torch.arange(number, device=found.image.device)
        counts = (found.image == images[:, None]).sum(dim=1)  # (N,)
        first = counts.cumsum(0) - counts
        index = torch.arange(found.image.shape[0], device=found.image.device) - first[found.image]
        index = index + rows * found.image

        def spread(values: Tensor, fill: float) -> Tensor:
            empty = torch.full((number * rows, *values.shape[1:]), fill, dtype=values.dtype, device=values.device)
            return empty.index_copy(0, index, values).unflatten(0, (number, rows))

        masks = found.mask_probabilities
        return cls(
            spread(found.boxes, 0.0),
            spread(found.scores, 0.0),
            spread(found.labels, -1),
            counts,
            None if masks is None else spread(masks, 0.0),
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """Return what is there, in order."""
        return tuple(values for values in self if values is not None)

    def objects(self) -> RawDetections:
        """Return the objects of all images one behind the other."""
        number, rows = self.scores.shape
        exists = torch.arange(rows, device=self.scores.device) < self.counts[:, None]  # (N, D)
        image = torch.arange(number, device=self.scores.device)[:, None].expand(-1, rows)[exists]
        masks = None if self.mask_probabilities is None else self.mask_probabilities[exists]
        return RawDetections(self.boxes[exists], self.scores[exists], self.labels[exists], image, masks)


def to_detections(
    outputs: RawDetections, images: Images, class_names: tuple[str, ...] | None, *, mask_threshold: float = 0.5
) -> list[Detections]:
    """Lead the objects of a batch back to its original images: one result for each.

    A pixel belongs to a mask from the probability `mask_threshold` on, 0..1.

    Raises:
        ValueError: a score, a box or a mask is not finite, which means broken weights or a broken input.
    """
    check_finite(outputs)
    boxes, scores = outputs.boxes.float(), outputs.scores.float()
    original = torch.tensor(images.original_hw, dtype=torch.float32, device=boxes.device).reshape(-1, 2)
    scale = images.valid_hw.to(boxes.device).float() / original  # (N, 2) height, width
    results: list[Detections] = []
    for i, original_hw in enumerate(images.original_hw):
        own = (outputs.image == i).nonzero().flatten()
        placed = clip_boxes(boxes[own] / scale[i].flip(0).repeat(2), original[i])
        masks = None
        if outputs.mask_probabilities is not None:
            masks = paste_masks(outputs.mask_probabilities[own].float(), placed, original_hw, threshold=mask_threshold)
        found = (placed.cpu(), scores[own].cpu(), outputs.labels[own].cpu())
        results.append(Detections(*found, class_names=class_names, original_hw=original_hw, run_length_masks=masks))
    return results


def check_finite(outputs: RawDetections) -> None:
    """Raise a ValueError unless all boxes, scores and masks are finite."""
    values = (outputs.boxes, outputs.scores, outputs.mask_probabilities)
    if not all(value is None or bool(value.isfinite().all()) for value in values):
        raise ValueError(
            "the model answered with NaN or infinite boxes, scores or masks; check the weights (NaN parameters?) and, "
            "in half precision, try float32"
        )
