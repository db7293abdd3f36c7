"""DINO: backbone -> channel mapper -> encoder -> choice of queries -> decoder -> classes and boxes.

Shape legend: N images, S cells of all levels, Q queries, K classes, C channels, G objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.backbones.composite import CompositeInternImage
from internimage.detection.config import DINOConfig
from internimage.detection.dino.denoising import Denoising, Noise, draw_noise, make_queries
from internimage.detection.dino.loss import Predictions, set_losses
from internimage.detection.dino.transformer import DINOTransformer, Memory, inverse_sigmoid
from internimage.detection.model import Detector, full_size, without_small
from internimage.detection.postprocess import RawDetections
from internimage.flow import RunOptions
from internimage.layers.feature_pyramid import ChannelMapper
from internimage.ops.boxes import clip_boxes, to_corners
from internimage.types import DetectionTargets, Features, Images

if TYPE_CHECKING:
    from typing_extensions import Unpack

# A fresh classifier starts from a probability of 0.01 for an object.
PRIOR_LOGIT = -math.log(0.99 / 0.01)


class Selected(NamedTuple):
    """The cells that become queries, best first."""

    indices: Tensor  # (N, Q) int64 place among the cells
    logits: Tensor  # (N, Q, K)
    box_logits: Tensor  # (N, Q, 4) inverse sigmoid of center and size


class BoxMLP(nn.Module):
    """Three linear layers with ReLU between them, from a query to the change of its box."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.fc3 = nn.Linear(channels, 4)
        nn.init.zeros_(self.fc3.weight)
        nn.init.zeros_(self.fc3.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., 4)."""
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class DINO(Detector):
    """DINO with four levels on an InternImage backbone, or on a composite of two.

    Args:
        config: architecture, preprocessing and class names.
        run: `activation_checkpointing`, `frozen_stages` and `backend`, see `TaskModel`.

    Source: DINO, https://arxiv.org/abs/2203.03605.

    Example:
        >>> import numpy as np
        >>> from internimage.backbones import variant
        >>> from internimage.detection import DetectionPreprocess
        >>> small = DetectionPreprocess(shorter_side=64, longer_side=96)
        >>> config = DINOConfig(variant("internimage_pico"), 3, channels=32, num_queries=10, preprocess=small)
        >>> [found] = DINO(config).predict([np.zeros((64, 80, 3), dtype=np.uint8)])
        >>> len(found)
        30
    """

    class_layers = re.compile(r"classifiers\.|label_embedding\.")
    class_bias = PRIOR_LOGIT
    config: DINOConfig  # pyright: ignore[reportIncompatibleVariableOverride]  # never assigned anew, so it may be narrower

    def __init__(self, config: DINOConfig, **run: Unpack[RunOptions]) -> None:
        super().__init__(config, out_indices=(1, 2, 3), num_backbones=config.num_backbones, **run)
        channels = config.channels
        self.neck = ChannelMapper(self.backbone.channels, channels, num_levels=config.num_levels)
        self.transformer = DINOTransformer(config, backend=self.backend)
        heads = config.num_decoder_layers + 1  # the last one belongs to the encoder
        classifiers = [nn.Linear(channels, config.num_classes) for _ in range(heads)]
        self.classifiers = nn.ModuleList(classifiers)
        self.regressors = nn.ModuleList(BoxMLP(channels) for _ in range(heads))
        self.label_embedding = nn.Embedding(config.num_classes, channels)
        for classifier in classifiers:
            nn.init.constant_(classifier.bias, PRIOR_LOGIT)

    @property
    def coarsest_stride(self) -> int:
        """Pixels for a cell of the coarsest level."""
        return self.backbone.strides[1] * 2 ** (self.config.num_levels - 1)

    def forward(self, pixels: Tensor, valid_hw: Tensor | None = None) -> RawDetections:
        """Find objects, see `Detector.forward`."""
        self.backbone.check(pixels)
        valid_hw = full_size(pixels, valid_hw)
        memory = self.encode(self.neck(self.backbone(pixels).maps), valid_hw, pixels)
        selected = self.select(memory)
        queries, reference = self.start(selected)
        *_, last = self.refine(queries, reference, memory)
        return self.report(last, valid_hw)

    def encode(self, maps: Sequence[Tensor], valid_hw: Tensor, pixels: Tensor) -> Memory:
        """Let every cell of the maps look around."""
        return self.transformer.encode(maps, valid_hw, (pixels.shape[2], pixels.shape[3]))

    def select(self, memory: Memory) -> Selected:
        """Choose the cells that most likely show an object."""
        cells, proposals = self.transformer.propose(memory)
        logits = self.classifiers[-1](cells)
        best = logits.amax(dim=-1).topk(min(self.config.num_queries, logits.shape[1]), dim=1).indices  # (N, Q)
        boxes = self.regressors[-1](_take(cells, best)).float() + _take(proposals, best)
        chosen = _take(logits, best)
        # A NaN that misled the choice goes on into the boxes, so that the answer reports it.
        return Selected(best, chosen, boxes.masked_fill(chosen.isnan().any(dim=-1, keepdim=True), torch.nan))

    def start(self, selected: Selected) -> tuple[Tensor, Tensor]:
        """Return queries (N, Q, C), which are learned, and their start boxes (N, Q, 4), which are chosen."""
        number, count = selected.indices.shape
        queries = self.transformer.query_embedding.weight[:count].expand(number, -1, -1)
        return queries, selected.box_logits.detach().sigmoid()

    def refine(
        self, queries: Tensor, reference: Tensor, memory: Memory, *, allowed: Tensor | None = None
    ) -> list[Predictions]:
        """Run the decoder; one entry for each layer."""
        # The last classifier and regressor belong to the encoder.
        classifiers, regressors = list(self.classifiers)[:-1], list(self.regressors)[:-1]
        hidden, references = self.transformer.decode(queries, reference, memory, regressors, allowed=allowed)
        return [
            Predictions(classifier(h), (regressor(h).float() + inverse_sigmoid(r)).sigmoid())
            for h, r, classifier, regressor in zip(hidden, references[:-1], classifiers, regressors, strict=True)
        ]

    def report(self, predictions: Predictions, valid_hw: Tensor) -> RawDetections:
        """Keep the best pairs of query and class of each image."""
        scores = predictions.logits.float().sigmoid().flatten(1)  # (N, Q * K)
        scores, index = scores.topk(min(self.config.max_per_image, scores.shape[1]), dim=1)
        labels = index % self.config.num_classes
        boxes = to_corners(_take(predictions.boxes, index // self.config.num_classes))
        size = valid_hw.flip(1).repeat(1, 2)[:, None]  # (N, 1, 4) width, height, width, height
        boxes = clip_boxes(boxes * size, valid_hw[:, None])
        image = torch.arange(scores.shape[0], device=scores.device)[:, None].expand_as(scores)
        return RawDetections(boxes.flatten(0, 1), scores.flatten(), labels.flatten(), image.flatten())

    def loss(
        self, images: Images, targets: Sequence[DetectionTargets], *, noise: Noise | None = None
    ) -> dict[str, Tensor]:
        """Return the losses of the chosen cells, of every decoder layer, and of denoising, see `Detector.loss`.

        `noise` are the random numbers of the denoising queries, None to draw them.

        Raises:
            ValueError: the targets do not fit the batch or the classes.
        """
        self.check_targets(images, targets, masks=False)
        targets = [without_small(target) for target in targets]
        valid_hw = images.valid_hw.to(images.pixels.device)
        if not isinstance(self.backbone, CompositeInternImage):
            return self._losses(self.backbone(images.pixels), images.pixels, valid_hw, targets, noise)
        # The heads learn from the maps of both backbones, from those of the first with less weight.
        weight = self.config.set_loss.assisting_weight
        first, second = (
            self._losses(features, images.pixels, valid_hw, targets, noise)
            for features in self.backbone.forward_both(images.pixels)
        )
        return {f"{name}0_w{weight}": value * weight for name, value in first.items()} | {
            f"{name}1": value for name, value in second.items()
        }

    def _losses(
        self,
        features: Features,
        pixels: Tensor,
        valid_hw: Tensor,
        targets: Sequence[DetectionTargets],
        noise: Noise | None,
    ) -> dict[str, Tensor]:
        memory = self.encode(self.neck(features.maps), valid_hw, pixels)
        selected = self.select(memory)
        queries, reference = self.start(selected)
        denoising = self.denoise(targets, valid_hw, queries.shape[1], noise)
        allowed = None
        if denoising is not None:
            queries = torch.cat([denoising.queries.to(queries.dtype), queries], dim=1)
            reference = torch.cat([denoising.box_logits.sigmoid(), reference], dim=1)
            allowed = denoising.allowed[None]
        layers = self.refine(queries, reference, memory, allowed=allowed)
        chosen = Predictions(selected.logits, selected.box_logits.sigmoid())
        return set_losses(chosen, layers, denoising, targets, valid_hw, self.config)

    def denoise(
        self, targets: Sequence[DetectionTargets], valid_hw: Tensor, num_queries: int, noise: Noise | None
    ) -> Denoising | None:
        """Make the denoising queries of a batch; None where no image shows an object."""
        drawn = noise or draw_noise(targets, self.config)
        return make_queries(targets, valid_hw, self.label_embedding, drawn, self.config, num_queries=num_queries)


def _take(values: Tensor, indices: Tensor) -> Tensor:
    """Pick rows of (N, S, X) by (N, Q) indices: (N, Q, X)."""
    return values.gather(1, indices[..., None].expand(-1, -1, values.shape[-1]))
