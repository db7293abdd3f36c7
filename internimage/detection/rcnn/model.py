"""Two-stage detectors: backbone -> pyramid -> proposals -> box stages -> masks.

Shape legend: N images, R regions or objects of all images, K classes, S side of a mask's map.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from internimage.detection.config import RCNNConfig
from internimage.detection.model import Detector, full_size, without_small
from internimage.detection.postprocess import RawDetections
from internimage.detection.rcnn.loss import Choose, choose_at_random, rpn_losses, stage_losses
from internimage.detection.rcnn.roi_heads import BoxHead, MaskHead, in_parts, region_features
from internimage.detection.rcnn.rpn import RPN, Proposals
from internimage.flow import RunOptions
from internimage.layers.feature_pyramid import FeaturePyramid
from internimage.ops.boxes import nms_in_groups
from internimage.types import DetectionTargets, Images

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Regions worked on at once in inference on a CPU: at 256 channels their maps take 13 MB, their hidden masks 26 MB.
BOXES_AT_ONCE = 256
MASKS_AT_ONCE = 32


class RCNN(Detector):
    """Faster R-CNN, Mask R-CNN and their cascades on an InternImage backbone.

    Args:
        config: architecture, preprocessing and class names.
        run: `activation_checkpointing`, `frozen_stages` and `backend`, see `TaskModel`.

    Source: Mask R-CNN, https://arxiv.org/abs/1703.06870; Cascade R-CNN, https://arxiv.org/abs/1712.00726.

    Example:
        >>> import numpy as np
        >>> from internimage.backbones import variant
        >>> from internimage.detection import DetectionPreprocess
        >>> small = DetectionPreprocess(shorter_side=64, longer_side=96)
        >>> model = RCNN(RCNNConfig(variant("internimage_pico"), num_classes=3, channels=32, preprocess=small))
        >>> [found] = model.predict([np.zeros((64, 80, 3), dtype=np.uint8)])
        >>> found.boxes_xyxy.shape[1]
        4
    """

    class_layers = re.compile(r"box_heads\.\d+\.(classifier|regressor)\.|mask_heads\.\d+\.logits\.")
    config: RCNNConfig  # pyright: ignore[reportIncompatibleVariableOverride]  # never assigned anew, so it may be narrower

    def __init__(self, config: RCNNConfig, **run: Unpack[RunOptions]) -> None:
        super().__init__(config, **run)
        self.neck = FeaturePyramid(
            self.backbone.channels, config.channels, num_levels=len(config.rpn.strides), norm=config.pyramid_norm
        )
        self.rpn = RPN(config.channels, config.rpn)
        self.box_heads = nn.ModuleList(
            BoxHead(config.channels, config.roi_size, config.num_classes, stage) for stage in config.stages
        )
        mask = config.mask
        self.mask_heads = nn.ModuleList(
            MaskHead(config.channels, config.num_classes, mask) for _ in config.stages if mask is not None
        )

    @property
    def mask_threshold(self) -> float:
        """Probability from which a pixel belongs to an object, 0..1."""
        return super().mask_threshold if self.config.mask is None else self.config.mask.threshold

    @property
    def mask_side(self) -> int | None:
        """Side S of the probability map of an object, None without masks."""
        return None if self.config.mask is None else 2 * self.config.mask.roi_size

    @property
    def coarsest_stride(self) -> int:
        """Pixels for a cell of the coarsest level."""
        return self.config.rpn.strides[-1]

    @property
    def has_free_batch(self) -> bool:
        """False: proposals are suppressed image by image, in a loop that a graph unrolls."""
        return False

    def forward(self, pixels: Tensor, valid_hw: Tensor | None = None) -> RawDetections:
        """Find objects, see `Detector.forward`."""
        self.backbone.check(pixels)
        if pixels.is_meta:
            raise ValueError(
                "how many objects an R-CNN finds depends on the values of the pixels, which meta tensors lack; "
                "ask its parts for shapes: model.neck(model.backbone(pixels).maps)"
            )
        if pixels.shape[0] == 0:
            return self._nothing(pixels)
        valid_hw = full_size(pixels, valid_hw)
        maps = self.neck(self.backbone(pixels).maps)
        proposals = self.rpn.propose(self.rpn(maps), valid_hw, self.config.rpn.test)
        found = self.classify(maps, proposals, valid_hw)
        if not self.mask_heads:
            return found
        return found._replace(mask_probabilities=self.draw_masks(maps, found))

    def _nothing(self, pixels: Tensor) -> RawDetections:
        """What is found in a batch without images."""
        numbers = torch.zeros(0, dtype=torch.int64, device=pixels.device)
        scores = torch.zeros(0, device=pixels.device)  # float32 like all raw objects
        mask = self.config.mask
        masks = None if mask is None else scores.new_zeros(0, 2 * mask.roi_size, 2 * mask.roi_size)
        return RawDetections(scores.new_zeros(0, 4), scores, numbers, numbers, masks)

    def region_features(self, maps: Sequence[Tensor], rois: Tensor, side: int) -> Tensor:
        """Cut (R, 5) regions out of the finest levels of the pyramid: (R, C, side, side)."""
        number, config = len(self.backbone.strides), self.config
        strides, finest_scale = config.rpn.strides[:number], config.roi_finest_scale
        rois = rois.nan_to_num(0.0, 0.0, 0.0)  # sampling at NaN is undefined; `postprocess` reports where it comes from
        return region_features(
            maps[:number], rois, side, strides=strides, finest_scale=finest_scale, backend=self.backend
        )

    def classify(self, maps: Sequence[Tensor], proposals: Proposals, valid_hw: Tensor) -> RawDetections:
        """Send proposals through the box stages and suppress repeated objects."""
        rois = torch.cat([proposals.image[:, None].to(proposals.boxes.dtype), proposals.boxes], dim=1)
        logits: list[Tensor] = []
        heads = cast("list[BoxHead]", self.box_heads)
        last, deltas = heads[0], rois
        for head in (*heads, *[heads[-1]] * (self.config.last_stage_passes - 1)):
            if logits:
                rois = last.refine(rois, logits[-1], deltas, valid_hw)
            stage_logits, deltas = in_parts(partial(self._look, head, maps), BOXES_AT_ONCE, rois)
            logits.append(stage_logits.float())
            last = head
        scores = torch.stack(logits).mean(dim=0).softmax(dim=-1)[:, :-1]  # (R, K)
        boxes = last.decode(rois, deltas, valid_hw).expand(-1, self.config.num_classes, -1)  # (R, K, 4)
        is_good = proposals.scores.isfinite() & scores.isfinite().all(dim=1) & boxes.isfinite().all(dim=2).all(dim=1)
        return self._suppress(boxes, scores.masked_fill(~is_good[:, None], torch.nan), proposals.image, len(valid_hw))

    def _look(self, head: nn.Module, maps: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        return head(self.region_features(maps, rois, self.config.roi_size))

    def _suppress(self, boxes: Tensor, scores: Tensor, image: Tensor, num_images: int) -> RawDetections:
        """Keep the best objects of each image; a region with NaN stays as one object, so that it is noticed."""
        kept: list[RawDetections] = []
        for i in range(num_images):
            own = image == i
            is_kept = scores[own] > self.config.score_threshold  # false for NaN
            is_kept[:, 0] |= scores[own][:, 0].isnan()
            region, label = is_kept.nonzero(as_tuple=True)
            own_boxes, own_scores = boxes[own][region, label], scores[own][region, label]
            best = nms_in_groups(own_boxes, own_scores, label, self.config.nms_iou)[: self.config.max_per_image]
            kept.append(RawDetections(own_boxes[best], own_scores[best], label[best], torch.full_like(best, i)))
        return RawDetections.join(kept)

    def draw_masks(self, maps: Sequence[Tensor], found: RawDetections) -> Tensor:
        """Return the (R, S, S) probabilities of the class of each object, averaged over the stages."""
        assert self.config.mask is not None
        rois = torch.cat([found.image[:, None].to(found.boxes.dtype), found.boxes], dim=1)
        [drawn] = in_parts(partial(self._draw, maps, self.config.mask.roi_size), MASKS_AT_ONCE, rois, found.labels)
        return drawn

    def _draw(self, maps: Sequence[Tensor], side: int, rois: Tensor, labels: Tensor) -> tuple[Tensor]:
        features = self.region_features(maps, rois, side)
        drawn = [head.of_class(features, labels) for head in cast("list[MaskHead]", self.mask_heads)]
        return (torch.stack([logits.float().sigmoid() for logits in drawn]).mean(dim=0),)

    def loss(
        self, images: Images, targets: Sequence[DetectionTargets], *, choose: Choose = choose_at_random
    ) -> dict[str, Tensor]:
        """Return the losses of proposals and of every stage, see `Detector.loss`.

        Targets need masks where the model draws them; `choose` picks the examples among the candidates, which the
        published training does at random.

        Raises:
            ValueError: the targets do not fit the batch or the classes.
        """
        self.check_targets(images, targets, masks=bool(self.mask_heads))
        targets = [without_small(target) for target in targets]
        valid_hw = images.valid_hw.to(images.pixels.device)
        maps = self.neck(self.backbone(images.pixels).maps)
        outputs = self.rpn(maps)
        divisor = self.config.preprocess.divisor
        classes, boxes = rpn_losses(self.rpn, outputs, valid_hw, targets, divisor=divisor, choose=choose)
        with torch.no_grad():
            proposals = self.rpn.propose(outputs, valid_hw, self.config.rpn.train)
        losses = {"loss_rpn_cls": classes.sum(), "loss_rpn_bbox": boxes.sum()}
        cut = partial(self.region_features, maps)
        heads = list(zip_longest(cast("list[BoxHead]", self.box_heads), cast("list[MaskHead]", self.mask_heads)))
        return losses | stage_losses(heads, cut, self.config, proposals, valid_hw, targets, choose=choose)
