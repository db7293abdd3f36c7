"""Losses of two-stage detectors: examples are assigned and drawn, then compared with what the heads say.

Shape legend: N images, R regions, G objects, B candidates, P examples of objects, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from internimage import parallel
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
    """The examples drawn from one image: P of objects first, of the background behind them."""

    boxes: Tensor  # (R, 4)
    objects: Tensor  # (P,) int64 index of the object
    is_truth: Tensor  # (R,) bool: the box is a true box that joined the candidates
    indices: Tensor  # (R,) int64 place among the candidates (behind the true boxes, where those join)

    @property
    def positives(self) -> int:
        """P, examples of objects."""
        return len(self.objects)

    def labels(self, target: DetectionTargets, background: int) -> Tensor:
        """Return the (R,) class of each example."""
        return F.pad(target.labels[self.objects], (0, len(self.boxes) - self.positives), value=background)


# The examples of each image, beside what it shows.
Drawn = Sequence[tuple[SampledBoxes, DetectionTargets]]


class _Candidates(NamedTuple):
    """What the examples of one image are drawn from."""

    boxes: Tensor  # (B, 4), true boxes in front where they join
    assigned: Tensor  # (B,) int64 index of the object of each, or what it is instead
    is_truth: Tensor  # (B,) bool
    positive: Tensor  # indices of those that may become examples of objects
    negative: Tensor  # and of the background


def draw_samples(
    boxes: Sequence[Tensor],
    targets: Sequence[DetectionTargets],
    assign: AssignConfig,
    sample: SampleConfig,
    choose: Choose,
) -> list[SampledBoxes]:
    """Assign the (B, 4) candidates of each image to its objects and draw examples; `choose` picks among too many.

    Every process draws for the whole batch, image by image, and keeps its own, as a single process would.
    """
    found = [
        _candidates(own, target.boxes_xyxy.float(), assign, sample) for own, target in zip(boxes, targets, strict=True)
    ]
    own = dict(zip(parallel.own_rows(len(found)), found, strict=True))
    most, samples = int(sample.number * sample.positive_fraction), list[SampledBoxes]()
    for i, lengths in enumerate(parallel.of_batch([(len(x.positive), len(x.negative)) for x in found])):
        if (x := own.get(i)) is not None:
            positive, negative = x.positive, x.negative
        else:
            positive, negative = (torch.arange(length, device=boxes[0].device) for length in lengths)
        positive = _at_most(positive, most, choose)
        negative = _at_most(negative, sample.number - len(positive), choose)
        if x is not None:
            indices = torch.cat([positive, negative])
            samples.append(SampledBoxes(x.boxes[indices], x.assigned[positive], x.is_truth[indices], indices))
    return samples


def _candidates(boxes: Tensor, true_boxes: Tensor, assign: AssignConfig, sample: SampleConfig) -> _Candidates:
    is_truth = boxes.new_zeros(len(boxes), dtype=torch.bool)
    assigned = assign_by_overlap(boxes, true_boxes, **asdict(assign))
    if sample.add_truth:
        boxes = torch.cat([true_boxes.to(boxes.dtype), boxes])
        is_truth = torch.cat([is_truth.new_ones(len(true_boxes)), is_truth])
        assigned = torch.cat([torch.arange(len(true_boxes), device=boxes.device), assigned])
    positive, negative = (assigned >= 0).nonzero().flatten(), (assigned == BACKGROUND).nonzero().flatten()
    return _Candidates(boxes, assigned, is_truth, positive, negative)


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

    `valid_hw` are (N, 2) sizes before padding to multiples of `divisor`, in pixels; `choose` picks among too many.
    """
    config, levels = rpn.config, rpn.anchors(outputs)
    padded_hw = (valid_hw + divisor - 1) // divisor * divisor
    usable = torch.cat(
        [
            inside_flags(own, (x.shape[2], x.shape[3]), stride, valid_hw, padded_hw, config.allowed_border)
            for own, x, stride in zip(levels, outputs.logits, config.strides, strict=True)
        ],
        dim=1,
    )  # (N, B)
    anchors = torch.cat(levels)  # (B, 4)
    logits, deltas = torch.cat(outputs.flat_logits(), dim=1), torch.cat(outputs.flat_deltas(), dim=1)
    level = torch.cat([torch.full((len(own),), i, device=logits.device) for i, own in enumerate(levels)])
    class_losses, box_losses = logits.new_zeros(2, len(levels)).unbind()
    total = 0
    candidates = [own.nonzero().flatten() for own in usable]
    samples = draw_samples([anchors[own] for own in candidates], targets, config.assign, config.sample, choose)
    for i, (target, drawn) in enumerate(zip(targets, samples, strict=True)):
        index = candidates[i][drawn.indices]
        is_object = torch.arange(len(index), device=index.device) < drawn.positives
        losses = F.binary_cross_entropy_with_logits(logits[i, index], is_object.to(logits.dtype), reduction="none")
        class_losses = class_losses.index_add(0, level[index], losses)
        own = index[: drawn.positives]
        true_boxes = target.boxes_xyxy[drawn.objects].float()
        losses = _box_loss(config.box_loss, anchors[own], deltas[i, own], true_boxes, STDS)
        box_losses = box_losses.index_add(0, level[own], losses)
        total += len(index)
    scale = 1 / parallel.divisor(total, logits)
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

    `heads` are box and mask head of each stage, `valid_hw` (N, 2) sizes before padding; `choose` picks among too many.
    """
    losses: dict[str, Tensor] = {}
    candidates = [proposals.of(i)[0] for i in range(len(targets))]
    for number, (head, mask_head) in enumerate(heads):
        stage = head.config
        samples = draw_samples(candidates, targets, stage.assign, stage.sample, choose)
        drawn = list(zip(samples, targets, strict=True))
        rois = _rois([sample.boxes for sample, _ in drawn])
        labels = torch.cat([sample.labels(target, config.num_classes) for sample, target in drawn])
        logits, deltas = (x.float() for x in head(cut(rois, config.roi_size)))
        own = {
            "loss_cls": F.cross_entropy(logits, labels, reduction="sum") / parallel.divisor(len(labels), logits),
            "loss_bbox": _stage_box_loss(head, rois, deltas, labels, drawn),
        }
        if mask_head is not None and config.mask is not None:
            own["loss_mask"] = _mask_loss(mask_head, cut, config.mask.roi_size, drawn)
        prefix = f"s{number}." if len(heads) > 1 else ""
        losses |= {prefix + name: value * stage.loss_weight for name, value in own.items()}
        if number < len(heads) - 1:
            moved = _moved(head, rois, labels, logits, deltas, valid_hw).split([len(s.boxes) for s, _ in drawn])
            # True boxes that had joined are left out.
            candidates = [boxes[~sample.is_truth] for boxes, (sample, _) in zip(moved, drawn, strict=True)]
    return losses


def _rois(boxes: Sequence[Tensor]) -> Tensor:
    """Put the boxes of all images into one (R, 5) tensor of regions."""
    return torch.cat([F.pad(own, (1, 0), value=float(i)) for i, own in enumerate(boxes)])


def _stage_box_loss(head: BoxHead, rois: Tensor, deltas: Tensor, labels: Tensor, drawn: Drawn) -> Tensor:
    """Regression loss of the examples of objects, divided by the number of all examples."""
    positive = (labels < head.num_classes).nonzero().flatten()
    true_boxes = torch.cat([target.boxes_xyxy[sample.objects].float() for sample, target in drawn])
    chosen = head.of_class(deltas[positive], labels[positive])
    losses = _box_loss(head.config.box_loss, rois[positive, 1:], chosen, true_boxes, head.config.stds)
    return losses.sum() * head.config.box_loss.weight / parallel.divisor(len(rois), losses)


def _mask_loss(head: MaskHead, cut: Cut, side: int, drawn: Drawn) -> Tensor:
    """Mean cross entropy of the pixels of the masks of examples of objects."""
    boxes = [sample.boxes[: sample.positives] for sample, _ in drawn]
    labels = torch.cat([target.labels[sample.objects] for sample, target in drawn])
    logits = head.of_class(cut(_rois(boxes), side), labels).float()
    true_masks = [
        crop_masks(target.masks, own, sample.objects, 2 * side)
        for own, (sample, target) in zip(boxes, drawn, strict=True)
        if target.masks is not None
    ]
    losses = F.binary_cross_entropy_with_logits(logits, torch.cat(true_masks), reduction="sum")
    return losses / parallel.divisor(logits.numel(), losses)


@torch.no_grad()
def _moved(head: BoxHead, rois: Tensor, labels: Tensor, logits: Tensor, deltas: Tensor, valid_hw: Tensor) -> Tensor:
    """Move the examples by the regression of their class, those of the background by that of their best class."""
    best = torch.where(labels == head.num_classes, logits[:, :-1].argmax(dim=1), labels)
    return head.move(rois, best, deltas, valid_hw)
