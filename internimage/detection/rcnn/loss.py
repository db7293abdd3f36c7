"""Losses of two-stage detectors: examples are assigned and drawn, then compared with what the heads say.

Shape legend: N images, R regions, G objects, B candidates, K classes, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.detection.config import AssignConfig, BoxLossConfig, RCNNConfig, SampleConfig
from internimage.detection.rcnn.anchors import inside_flags
from internimage.detection.rcnn.roi_heads import BoxHead, MaskHead
from internimage.detection.rcnn.rpn import RPN, STDS, Proposals, RPNOutputs
from internimage.ops.assignment import BACKGROUND, assign_by_overlap
from internimage.ops.boxes import decode_deltas, encode_deltas
from internimage.ops.losses import giou_loss, smooth_l1_loss
from internimage.ops.masks import crop_masks
from internimage.types import DetectionTargets

# Takes (B,) indices and a number, gives that many of them.
Choose = Callable[[Tensor, int], Tensor]
# Takes (R, 5) regions and a side, gives their maps (R, C, side, side).
Cut = Callable[[Tensor, int], Tensor]


def choose_at_random(candidates: Tensor, number: int) -> Tensor:
    """Draw `number` of the candidates, each with the same chance, in ascending order."""
    order = torch.randperm(len(candidates), device=candidates.device)
    return candidates[order[:number]].sort().values


class SampledBoxes(NamedTuple):
    """The examples drawn from one image: of objects first, of the background behind them."""

    boxes: Tensor  # (R, 4)
    positives: int
    objects: Tensor  # (positives,) int64 number of the object of each positive
    is_ground_truth: Tensor  # (R,) bool: the box is a true box that joined the candidates
    indices: Tensor  # (R,) int64 place among the candidates (behind the true boxes, where those join)


def draw_sample(
    boxes: Tensor, true_boxes: Tensor, assign: AssignConfig, sample: SampleConfig, choose: Choose
) -> SampledBoxes:
    """Assign candidates to objects and draw examples.

    Args:
        boxes: (B, 4) candidates.
        true_boxes: (G, 4) true boxes.
        assign: limits of the overlaps.
        sample: how many are drawn.
        choose: picks among too many.
    """
    is_ground_truth = boxes.new_zeros(len(boxes), dtype=torch.bool)
    assigned = assign_by_overlap(boxes, true_boxes, **asdict(assign))
    if sample.add_truth:
        boxes = torch.cat([true_boxes.to(boxes.dtype), boxes])
        is_ground_truth = torch.cat([is_ground_truth.new_ones(len(true_boxes)), is_ground_truth])
        assigned = torch.cat([torch.arange(len(true_boxes), device=boxes.device), assigned])
    positive = _at_most((assigned >= 0).nonzero().flatten(), int(sample.number * sample.positive_fraction), choose)
    negative = _at_most((assigned == BACKGROUND).nonzero().flatten(), sample.number - len(positive), choose)
    indices = torch.cat([positive, negative])
    return SampledBoxes(boxes[indices], len(positive), assigned[positive], is_ground_truth[indices], indices)


def _at_most(candidates: Tensor, number: int, choose: Choose) -> Tensor:
    return candidates if len(candidates) <= number else choose(candidates, number)


def rpn_losses(
    rpn: RPN,
    outputs: RPNOutputs,
    valid_hw: Tensor,
    targets: Sequence[DetectionTargets],
    *,
    divisor: int,
    choose: Choose,
) -> tuple[Tensor, Tensor]:
    """Return the classification and the box losses of the proposal network, (L,) each, one for each level.

    Args:
        rpn: the network.
        outputs: what it gave.
        valid_hw: (N, 2) sizes before padding.
        targets: true boxes of each image.
        divisor: images are padded to multiples of this, in pixels.
        choose: picks examples among too many.
    """
    config = rpn.config
    anchors = rpn.anchors(outputs)
    padded_hw = (valid_hw + divisor - 1) // divisor * divisor
    sizes = [(x.shape[2], x.shape[3]) for x in outputs.logits]
    usable = torch.cat(
        [
            inside_flags(a, size, stride, valid_hw, padded_hw, config.allowed_border)
            for a, size, stride in zip(anchors, sizes, config.strides, strict=True)
        ],
        dim=1,
    )  # (N, B)
    everything = torch.cat(anchors)  # (B, 4)
    logits, deltas = torch.cat(outputs.flat_logits(), dim=1), torch.cat(outputs.flat_deltas(), dim=1)
    level = torch.arange(len(anchors), device=logits.device).repeat_interleave(
        torch.tensor([len(a) for a in anchors], device=logits.device)
    )
    class_losses, box_losses = logits.new_zeros(len(anchors)), logits.new_zeros(len(anchors))
    total = 0
    for i, target in enumerate(targets):
        candidates = usable[i].nonzero().flatten()
        drawn = draw_sample(everything[candidates], target.boxes_xyxy.float(), config.assign, config.sample, choose)
        index, positives = candidates[drawn.indices], drawn.positives
        is_object = torch.arange(len(index), device=index.device) < positives
        losses = F.binary_cross_entropy_with_logits(logits[i, index], is_object.to(logits.dtype), reduction="none")
        class_losses = class_losses.index_add(0, level[index], losses)
        own = index[:positives]
        true_boxes = target.boxes_xyxy[drawn.objects].float()
        losses = _box_loss(config.box_loss, everything[own], deltas[i, own], true_boxes, STDS)
        box_losses = box_losses.index_add(0, level[own], losses)
        total += len(index)
    scale = 1 / max(total, 1)
    return class_losses * scale, box_losses * scale * config.box_loss.weight


def _box_loss(
    config: BoxLossConfig, boxes: Tensor, deltas: Tensor, true_boxes: Tensor, stds: tuple[float, ...]
) -> Tensor:
    """Return the (R,) unweighted regression losses."""
    if config.kind == "giou":
        return giou_loss(decode_deltas(boxes, deltas, stds), true_boxes)
    beta = config.beta if config.kind == "smooth_l1" else 0.0
    return smooth_l1_loss(deltas, encode_deltas(boxes, true_boxes, stds), beta=beta).sum(dim=1)


def stage_losses(
    heads: Sequence[tuple[BoxHead, MaskHead | None]],
    cut: Cut,
    config: RCNNConfig,
    proposals: Proposals,
    valid_hw: Tensor,
    targets: Sequence[DetectionTargets],
    *,
    choose: Choose,
) -> dict[str, Tensor]:
    """Return the losses of every box stage; with several stages their names begin with "s0.", "s1.", ...

    Args:
        heads: box and mask head of each stage.
        cut: cuts regions out of the maps of the pyramid.
        config: settings of the detector.
        proposals: regions of all images.
        valid_hw: (N, 2) sizes before padding.
        targets: what is in each image.
        choose: picks examples among too many.
    """
    losses: dict[str, Tensor] = {}
    candidates = [proposals.of(i)[0] for i in range(len(targets))]
    for number, (head, mask_head) in enumerate(heads):
        stage = head.config
        drawn = [
            draw_sample(boxes, target.boxes_xyxy.float(), stage.assign, stage.sample, choose)
            for boxes, target in zip(candidates, targets, strict=True)
        ]
        rois = _rois([sample.boxes for sample in drawn])
        labels = _labels(drawn, targets, config.num_classes)
        logits, deltas = head(cut(rois, config.roi_size))
        logits, deltas = logits.float(), deltas.float()
        own = {
            "loss_cls": F.cross_entropy(logits, labels, reduction="sum") / max(len(labels), 1),
            "loss_bbox": _stage_box_loss(head, rois, deltas, labels, drawn, targets),
        }
        if mask_head is not None and config.mask is not None:
            own["loss_mask"] = _mask_loss(mask_head, cut, config.mask.roi_size, drawn, targets)
        prefix = f"s{number}." if len(heads) > 1 else ""
        losses |= {prefix + name: value * stage.loss_weight for name, value in own.items()}
        if number < len(heads) - 1:
            candidates = _next_candidates(head, rois, labels, logits, deltas, drawn, valid_hw)
    return losses


def _rois(boxes: Sequence[Tensor]) -> Tensor:
    """Put the boxes of all images into one (R, 5) tensor of regions."""
    return torch.cat([F.pad(own, (1, 0), value=float(i)) for i, own in enumerate(boxes)])


def _labels(drawn: Sequence[SampledBoxes], targets: Sequence[DetectionTargets], background: int) -> Tensor:
    """Return the (R,) class of each example."""
    labels: list[Tensor] = []
    for sample, target in zip(drawn, targets, strict=True):
        own = target.labels.new_full((len(sample.boxes),), background)
        own[: sample.positives] = target.labels[sample.objects]
        labels.append(own)
    return torch.cat(labels)


def _positives(drawn: Sequence[SampledBoxes]) -> Tensor:
    """Return the (R,) bool of examples of objects."""
    flags = [torch.arange(len(s.boxes), device=s.boxes.device) < s.positives for s in drawn]
    return torch.cat(flags)


def _stage_box_loss(
    head: BoxHead,
    rois: Tensor,
    deltas: Tensor,
    labels: Tensor,
    drawn: Sequence[SampledBoxes],
    targets: Sequence[DetectionTargets],
) -> Tensor:
    """Regression loss of the examples of objects, divided by the number of all examples."""
    positive = _positives(drawn).nonzero().flatten()
    true_boxes = torch.cat([t.boxes_xyxy[s.objects].float() for s, t in zip(drawn, targets, strict=True)])
    chosen = head.of_class(deltas[positive], labels[positive])
    losses = _box_loss(head.config.box_loss, rois[positive, 1:], chosen, true_boxes, head.config.stds)
    return losses.sum() * head.config.box_loss.weight / max(len(rois), 1)


def _mask_loss(
    head: MaskHead,
    cut: Cut,
    side: int,
    drawn: Sequence[SampledBoxes],
    targets: Sequence[DetectionTargets],
) -> Tensor:
    """Mean cross entropy of the pixels of the masks of examples of objects."""
    boxes = [sample.boxes[: sample.positives] for sample in drawn]
    labels = torch.cat([t.labels[s.objects] for s, t in zip(drawn, targets, strict=True)])
    logits = head.of_class(cut(_rois(boxes), side), labels).float()
    true_masks = [
        crop_masks(target.masks, own, sample.objects, 2 * side)
        for own, sample, target in zip(boxes, drawn, targets, strict=True)
        if target.masks is not None
    ]
    losses = F.binary_cross_entropy_with_logits(logits, torch.cat(true_masks), reduction="sum")
    return losses / max(logits.numel(), 1)


@torch.no_grad()
def _next_candidates(
    head: BoxHead,
    rois: Tensor,
    labels: Tensor,
    logits: Tensor,
    deltas: Tensor,
    drawn: Sequence[SampledBoxes],
    valid_hw: Tensor,
) -> list[Tensor]:
    """Move the examples by the regression of their class; true boxes that had joined are left out."""
    background = head.num_classes
    best = torch.where(labels == background, logits[:, :-1].argmax(dim=1), labels)
    clip_hw = valid_hw[rois[:, 0].long()]
    moved = decode_deltas(rois[:, 1:], head.of_class(deltas, best), head.config.stds, clip_hw=clip_hw)
    parts = moved.split([len(sample.boxes) for sample in drawn])
    return [part[~sample.is_ground_truth] for part, sample in zip(parts, drawn, strict=True)]
