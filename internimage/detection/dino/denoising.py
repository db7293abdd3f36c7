"""Contrastive denoising: queries made from true objects with noise, which the decoder learns to undo or to refuse.

Shape legend: N images, G objects of all images, M largest number of objects in an image, R groups, P denoising
queries of an image (2 * M * R), Q queries in all, C channels. A group holds M places for slightly moved objects, then
M for objects moved too far, which are background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from internimage.detection.config import DINOConfig
from internimage.detection.dino.transformer import inverse_sigmoid
from internimage.ops.boxes import to_center_size, to_corners
from internimage.parallel import of_batch, own_part
from internimage.types import DetectionTargets


class Noise(NamedTuple):
    """Random numbers of the denoising queries, one row for each: objects within groups of two halves."""

    label_draw: Tensor  # (2 * R * G,) 0..1; a label is wrong where it is below half of the label noise
    labels: Tensor  # (2 * R * G,) int64 the wrong labels
    signs: Tensor  # (2 * R * G, 4) -1 or 1, direction of the shift of each corner coordinate
    shifts: Tensor  # (2 * R * G, 4) 0..1, size of the shift


class Denoising(NamedTuple):
    """The denoising queries of a batch."""

    queries: Tensor  # (N, P, C)
    box_logits: Tensor  # (N, P, 4) inverse sigmoid of center and size
    allowed: Tensor  # (P + Q, P + Q) bool, which query may look at which
    groups: int

    @property
    def number(self) -> int:
        """P, denoising queries of an image."""
        return self.queries.shape[1]


def num_groups(counts: Sequence[int], config: DINOConfig) -> int:
    """Return R, how often the objects are repeated so that about `denoising.num_queries` queries come together.

    Args:
        counts: objects in each image of the whole batch.
        config: how many queries.
    """
    most = max(counts, default=0)
    return max(1, config.denoising.num_queries // most) if most else 1


def draw_noise(targets: Sequence[DetectionTargets], config: DINOConfig) -> Noise:
    """Draw the random numbers of the whole batch; return those of the own images."""
    device = targets[0].labels.device
    counts = of_batch([len(target) for target in targets])
    repeats = 2 * num_groups(counts, config)
    rows = repeats * sum(counts)
    drawn = (
        torch.rand(rows, device=device),
        torch.randint(0, config.num_classes, (rows,), device=device),
        torch.randint(0, 2, (rows, 4), device=device) * 2.0 - 1.0,
        torch.rand(rows, 4, device=device),
    )
    return Noise(*(own_part(x.unflatten(0, (repeats, sum(counts))), counts, dim=1).flatten(0, 1) for x in drawn))


def make_queries(
    targets: Sequence[DetectionTargets],
    valid_hw: Tensor,
    embedding: nn.Embedding,
    noise: Noise,
    config: DINOConfig,
    *,
    num_queries: int,
) -> Denoising | None:
    """Make the denoising queries of a batch; None where no image shows an object.

    Args:
        targets: true objects of each image.
        valid_hw: (N, 2) sizes of the images before padding, in pixels.
        embedding: one vector for each class.
        noise: random numbers, see `Noise`.
        config: sizes and strength of the noise.
        num_queries: queries that are matched with objects, behind the denoising ones.

    Source: DINO, section 3.3, https://arxiv.org/abs/2203.03605.
    """
    counts = [len(target) for target in targets]
    whole = of_batch(counts)
    most, groups = max(whole, default=0), num_groups(whole, config)
    if most == 0:
        return None
    total, device = sum(counts), valid_hw.device
    labels = torch.cat([target.labels for target in targets]).repeat(2 * groups)
    boxes = torch.cat([relative_boxes(target, hw) for target, hw in zip(targets, valid_hw, strict=True)])
    is_wrong = noise.label_draw < 0.5 * config.denoising.label_noise
    labels = torch.where(is_wrong, noise.labels, labels)
    row = torch.arange(2 * groups * total, device=device)
    is_far = (row // total) % 2 == 1  # the second half of each group
    boxes = _moved(boxes.repeat(2 * groups, 1), noise, is_far, config.denoising.box_noise)
    image = torch.repeat_interleave(torch.arange(len(counts), device=device), torch.tensor(counts, device=device))
    order = torch.cat([torch.arange(count, device=device) for count in counts])
    place = order.repeat(2 * groups) + most * (row // total)  # (2 * R * G,) within the image's queries
    index = (image.repeat(2 * groups), place)
    number = 2 * groups * most
    vectors = embedding(labels)
    queries = vectors.new_zeros(len(counts), number, vectors.shape[-1]).index_put(index, vectors)
    logits = boxes.new_zeros(len(counts), number, 4).index_put(index, inverse_sigmoid(boxes))
    return Denoising(queries, logits, _allowed(groups, 2 * most, num_queries, device), groups)


def relative_boxes(target: DetectionTargets, valid_hw: Tensor) -> Tensor:
    """Return (G, 4) center and size as fractions of the image without padding."""
    return to_center_size(target.boxes_xyxy.float()) / valid_hw.flip(0).repeat(2)


def _moved(boxes: Tensor, noise: Noise, is_far: Tensor, strength: float) -> Tensor:
    """Move the corners of (R, 4) boxes by up to half of the sides, those of `is_far` by half to one whole side."""
    half = boxes[:, 2:].repeat(1, 2) / 2
    shift = (noise.shifts + is_far[:, None]) * noise.signs * half
    return to_center_size((to_corners(boxes) + shift * strength).clamp(0, 1))


def _allowed(groups: int, group_size: int, num_queries: int, device: torch.device) -> Tensor:
    """Tell which query may look at which: matched queries see one another, denoising ones their own group and these."""
    number = groups * group_size
    group = torch.arange(number + num_queries, device=device) // group_size
    group[number:] = groups
    return (group[:, None] == group[None]) | ((group[:, None] < groups) & (group[None] == groups))
