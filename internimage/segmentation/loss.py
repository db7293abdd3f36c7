"""Losses: cross entropy of pixels, and the set losses of Mask2Former.

Shape legend: N images, H W image, K classes, Q queries, T targets of an image, M matched masks, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.ops.assignment import match_least_cost
from internimage.parallel import divisor, of_batch, own_part, relative_to_mean
from internimage.segmentation.config import Mask2FormerConfig
from internimage.segmentation.mask2former.network import QueryOutput
from internimage.segmentation.upernet import resize_map
from internimage.types import Images

IGNORED = 255
DICE_EPS = 1.0


class MaskTargets(NamedTuple):
    """The regions of an image: (T,) class of each and (T, H, W) its mask, 0 or 1 in the type of the predictions."""

    labels: Tensor
    masks: Tensor


def check_targets(targets: Tensor, images: Images, num_rows: int) -> None:
    """Raise unless the label maps fit the batch and the classes.

    Raises:
        ValueError: the shape or the type is wrong, or a label is neither a class nor 255.
    """
    expected = (images.pixels.shape[0], *images.pixels.shape[2:])
    if tuple(targets.shape) != expected or targets.is_floating_point():
        raise ValueError(f"targets must be {expected} integers, given {tuple(targets.shape)} {targets.dtype}")
    strange = targets[(targets != IGNORED) & ((targets < 0) | (targets >= num_rows))]
    if strange.numel():
        raise ValueError(
            f"labels must lie in 0..{num_rows - 1} or be {IGNORED} (no label), given {int(strange[0])}; "
            "map the labels of the data set first"
        )


def pixel_loss(logits: Tensor, targets: Tensor, *, count_ignored_pixels: bool = False) -> Tensor:
    """Return the mean cross entropy over pixels.

    Args:
        logits: (N, K, h, w) scores, resized bilinearly to the size of the targets.
        targets: (N, H, W) integer class of every pixel, 255 where there is none.
        count_ignored_pixels: divide by all pixels instead of those with a label, as the published models were trained.

    Returns:
        Scalar loss; 0 where no pixel has a label.

    Example:
        >>> targets = torch.tensor([[[0, 1], [255, 255]]])
        >>> round(float(pixel_loss(torch.zeros(1, 4, 1, 1), targets)), 4)
        1.3863
        >>> round(float(pixel_loss(torch.zeros(1, 4, 1, 1), targets, count_ignored_pixels=True)), 4)
        0.6931
    """
    # Channels side by side are the slow layout of the softmax over them, and of resizing in bfloat16.
    logits = resize_map(logits.float().contiguous(), targets.shape[1:])
    total = F.cross_entropy(logits, targets.long(), ignore_index=IGNORED, reduction="sum")
    if count_ignored_pixels:
        return total / divisor(targets.numel(), total)
    return total / divisor((targets != IGNORED).sum(), total)


def mask2former_losses(outputs: Sequence[QueryOutput], targets: Tensor, config: Mask2FormerConfig) -> dict[str, Tensor]:
    """Return the weighted losses of what the queries of Mask2Former say before the first layer and after each.

    They are "class", "mask" and "dice" of the last output, "layer0_class" and so on of the others; `targets` are
    (N, H, W) integer classes of pixels, 255 where there is none.

    Source: Mask2Former, sections 3.2.3 and 3.4, arXiv 2112.01527.
    """
    dtype = torch.promote_types(outputs[0].mask_logits.dtype, torch.float32)
    regions = [mask_targets(label_map, dtype) for label_map in targets]
    num_queries = outputs[0].class_logits.shape[1]
    counts = of_batch([min(len(region.labels), num_queries) for region in regions])
    losses: dict[str, Tensor] = {}
    for i, output in enumerate(outputs):
        prefix = "" if i == len(outputs) - 1 else f"layer{i}_"
        raised = QueryOutput(output.class_logits.to(dtype), output.mask_logits.to(dtype))
        losses |= {prefix + name: value for name, value in _layer_losses(raised, regions, counts, config).items()}
    return losses


def mask_targets(label_map: Tensor, dtype: torch.dtype = torch.float32) -> MaskTargets:
    """Return one region for every class in an (H, W) label map, ascending by class."""
    labels = label_map.unique()
    labels = labels[labels != IGNORED].long()
    return MaskTargets(labels, (label_map == labels[:, None, None]).to(dtype))


def random_points(masks: int, points: int, like: Tensor) -> Tensor:
    """Return (masks, points, 2) uniform places (x, y) in 0..1, on the device and in the type of `like`."""
    return torch.rand(masks, points, 2, device=like.device, dtype=like.dtype)


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Return (M, P) bilinear samples of (M, H, W) maps at (M, P, 2) places (x, y), 0..1 from edge to edge."""
    grid = (2.0 * points - 1.0)[:, :, None]  # (M, P, 1, 2)
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, :, 0]


def matching_cost(class_logits: Tensor, mask_points: Tensor, target: MaskTargets, config: Mask2FormerConfig) -> Tensor:
    """Return (Q, T) costs of pairing queries with regions.

    `class_logits` are (Q, K + 1), `mask_points` (Q, P) mask logits at points, and `target.masks` (T, P) the values of
    the regions at the same points.
    """
    class_cost = -class_logits.softmax(dim=-1)[:, target.labels]
    inside, outside = F.softplus(-mask_points), F.softplus(mask_points)  # loss of a 1 and of a 0
    mask_cost = (inside @ target.masks.T + outside @ (1 - target.masks).T) / mask_points.shape[1]
    masks = mask_points.sigmoid()
    overlap = 2 * masks @ target.masks.T
    total = masks.sum(dim=1)[:, None] + target.masks.sum(dim=1)
    dice_cost = 1 - (overlap + DICE_EPS) / (total + DICE_EPS)
    return config.class_weight * class_cost + config.mask_weight * mask_cost + config.dice_weight * dice_cost


def class_loss(logits: Tensor, labels: Tensor, no_object_weight: float) -> Tensor:
    """Return the weighted mean cross entropy of (..., K + 1) logits; the last class means "nothing"."""
    weight = logits.new_ones(logits.shape[-1])
    weight[-1] = no_object_weight
    mean = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), weight=weight)
    return mean * relative_to_mean(weight[labels].sum())


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the (M,) dice losses of (M, P) mask logits against targets 0..1."""
    masks = logits.sigmoid()
    overlap = 2 * (masks * targets).sum(dim=1)
    return 1 - (overlap + DICE_EPS) / (masks.sum(dim=1) + targets.sum(dim=1) + DICE_EPS)


def _layer_losses(
    output: QueryOutput, regions: Sequence[MaskTargets], counts: Sequence[int], config: Mask2FormerConfig
) -> dict[str, Tensor]:
    """The three losses of one layer; `counts` are the matched masks of each image of the whole batch."""
    n, num_queries, num_outputs = output.class_logits.shape
    labels = torch.full((n, num_queries), num_outputs - 1, device=output.class_logits.device)
    drawn = [random_points(1, config.loss_points, output.mask_logits) for _ in counts]  # image by image, as published
    matching_points = own_part(torch.cat(drawn), [1] * len(counts))
    predicted, wanted = [], []
    for i, region in enumerate(regions):
        queries, indices = _match(
            output.class_logits[i], output.mask_logits[i], matching_points[i : i + 1], region, config
        )
        labels[i, queries] = region.labels[indices]
        predicted.append(output.mask_logits[i, queries])
        wanted.append(region.masks[indices])
    classification = class_loss(output.class_logits, labels, config.no_object_weight)
    masks, targets = torch.cat(predicted), torch.cat(wanted)
    count = divisor(masks.new_tensor(float(len(masks))), masks)
    if sum(counts) == 0:
        nothing = output.mask_logits.sum() * 0.0  # keeps the parameters of the masks in the graph
        return {"class": config.class_weight * classification, "mask": nothing, "dice": nothing}
    with torch.no_grad():
        points = _uncertain_points(masks, counts, config)
        target_points = sample_points(targets, points)
    mask_points = sample_points(masks, points)
    cross_entropy = F.binary_cross_entropy_with_logits(mask_points, target_points, reduction="sum")
    return {
        "class": config.class_weight * classification,
        "mask": config.mask_weight * cross_entropy / (count * points.shape[1]),
        "dice": config.dice_weight * dice_loss(mask_points, target_points).sum() / count,
    }


def _drawn(counts: Sequence[int], points: int, like: Tensor) -> Tensor:
    """Return (M, points, 2) random places for own masks, drawn for those of the whole batch.

    Args:
        counts: masks of each image of the whole batch.
        points: places of a mask.
        like: see `random_points`.
    """
    return own_part(random_points(sum(counts), points, like), counts)


@torch.no_grad()
def _match(
    class_logits: Tensor, mask_logits: Tensor, points: Tensor, region: MaskTargets, config: Mask2FormerConfig
) -> tuple[Tensor, Tensor]:
    """Return the matched queries and regions of one image, compared at (1, P, 2) points."""
    if len(region.labels) == 0:
        return region.labels, region.labels
    mask_points = sample_points(mask_logits, points.expand(len(mask_logits), -1, -1))
    target_points = sample_points(region.masks, points.expand(len(region.masks), -1, -1))
    cost = matching_cost(class_logits, mask_points, MaskTargets(region.labels, target_points), config)
    return match_least_cost(cost)


def _uncertain_points(masks: Tensor, counts: Sequence[int], config: Mask2FormerConfig) -> Tensor:
    """Choose (M, P, 2) places: most where the mask is least certain among random candidates, the rest at random."""
    candidates = _drawn(counts, int(config.loss_points * config.oversample_ratio), masks)
    num_uncertain = int(config.importance_ratio * config.loss_points)
    certainty = sample_points(masks, candidates).abs()
    chosen = certainty.topk(num_uncertain, dim=1, largest=False).indices
    points = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    if num_uncertain == config.loss_points:
        return points
    return torch.cat((points, _drawn(counts, config.loss_points - num_uncertain, masks)), dim=1)
