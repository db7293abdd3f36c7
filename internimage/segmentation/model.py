"""The segmentor: preprocess -> backbone -> head -> postprocess.

Shape legend: N images, H W size of the network's input, C channels of the input, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from internimage import parallel
from internimage.flow import ImageInput, RunOptions, TaskModel
from internimage.segmentation.config import HeadConfig, SegFormerConfig, SegmentorConfig, UperNetConfig
from internimage.segmentation.loss import check_targets, mask2former_losses, pixel_loss
from internimage.segmentation.mask2former.network import Mask2FormerHead
from internimage.segmentation.postprocess import ScoredWindow, ScoreMap, segment
from internimage.segmentation.preprocess import SegmentationPreprocess, SlidingWindow, prepare
from internimage.segmentation.segformer import SegFormerHead
from internimage.segmentation.upernet import UperNetHead
from internimage.types import Images, Segmentation

if TYPE_CHECKING:
    from typing_extensions import Unpack

WINDOWS_AT_ONCE = 4


class Segmentor(TaskModel[Segmentation]):
    """An InternImage segmentor with its preprocessing, class names and colors.

    Args:
        config: architecture, preprocessing and classes.
        run: `activation_checkpointing`, `frozen_stages` and `backend`, see `TaskModel`.

    Example:
        >>> import numpy as np
        >>> from internimage.backbones import variant
        >>> head = SegFormerConfig(channels=32)
        >>> model = Segmentor(SegmentorConfig(variant("internimage_pico"), num_classes=5, head=head))
        >>> [scene] = model.predict([np.zeros((64, 80, 3), dtype=np.uint8)])
        >>> scene.label_map.shape
        torch.Size([64, 80])
    """

    task = "segmentation"
    class_layers = re.compile(r"head\.(auxiliary\.)?classifier\.")
    config: SegmentorConfig  # pyright: ignore[reportIncompatibleVariableOverride]  # never assigned anew, so it may be narrower

    def __init__(self, config: SegmentorConfig, **run: Unpack[RunOptions]) -> None:
        super().__init__(config, **run)
        self.head = build_head(config.head, self.backbone.channels, config.rows, backend=self.backend)

    def preprocess(self, images: Sequence[ImageInput], config: SegmentationPreprocess | None = None) -> Images:
        """Read, resize and normalize images, see `prepare`; without `config` as the model's own says."""
        return prepare(images, config or self.config.preprocess)

    def predict(
        self,
        images: Sequence[ImageInput],
        *,
        batch_size: int = 1,
        preprocess: SegmentationPreprocess | None = None,
        probabilities: bool = False,
    ) -> list[Segmentation]:
        """Answer for each image, see `TaskModel.predict`.

        Args:
            images: images, see `TaskModel.predict`.
            batch_size: images in one batch; those of different sizes run one after the other.
            preprocess: how images become pixels, None for the model's own; for a huge image at full detail, take
                `SegmentationPreprocess(scale=None, window=SlidingWindow((1024, 1024), (768, 768)))`.
            probabilities: also return the probability of every class in every pixel, 4 * K bytes for each pixel.

        Raises:
            TypeError: `images` is one image instead of a list of them.
            ValueError: an image cannot be read, or the scores are not finite.
        """
        config = preprocess or self.config.preprocess
        return self.predict_in_batches(
            images,
            lambda part: self.preprocess(images[part], config),
            partial(self.predict_batch, preprocess=config, probabilities=probabilities),
            batch_size=batch_size,
        )

    def forward(self, pixels: Tensor, valid_hw: Tensor | None = None) -> Tensor:
        """Return the scores of all classes at stride 4.

        Args:
            pixels: (N, C, H, W) normalized pixels.
            valid_hw: ignored; padding would change the prediction, so `run` gives images without it.

        Returns:
            (N, K, H / 4, W / 4), sides rounded up: logits of UperNet and SegFormer, summed probabilities (0 and up)
            of Mask2Former.
        """
        return self.head(self.backbone(pixels))[:, : self.config.num_classes]

    def run(self, images: Images, *, preprocess: SegmentationPreprocess | None = None) -> list[ScoreMap]:
        """Return the scores of each image of a batch that is already on the right device.

        Where `preprocess` (None for the model's own) cuts windows, their scores are computed late, when the score map
        is read, so that only a few windows are in memory.
        """
        window = (preprocess or self.config.preprocess).window
        sizes = [(int(h), int(w)) for h, w in images.valid_hw.tolist()]
        if window is not None:
            return [
                ScoreMap(self._windows(images.pixels[i], hw, window), hw, images.original_hw[i])
                for i, hw in enumerate(sizes)
            ]
        found: dict[int, ScoreMap] = {}
        for height, width in dict.fromkeys(sizes):
            members = [i for i, hw in enumerate(sizes) if hw == (height, width)]
            scores = self(images.pixels[members, :, :height, :width])
            for i, score in zip(members, scores, strict=True):
                part = ScoredWindow(0, 0, height, width, score)
                found[i] = ScoreMap([part], (height, width), images.original_hw[i])
        return [found[i] for i in range(len(sizes))]

    def _windows(self, image: Tensor, size_hw: tuple[int, int], window: SlidingWindow) -> Iterator[ScoredWindow]:
        """Compute the windows of a (C, H, W) image a few at a time, row by row."""
        corners = window.corners(size_hw)
        height, width = (min(size, side) for size, side in zip(window.size_hw, size_hw, strict=True))
        for start in range(0, len(corners), WINDOWS_AT_ONCE):
            some = corners[start : start + WINDOWS_AT_ONCE]
            pixels = torch.stack([image[:, top : top + height, left : left + width] for top, left in some])
            for (top, left), scores in zip(some, self(pixels), strict=True):
                yield ScoredWindow(top, left, height, width, scores)

    def postprocess(
        self, outputs: Sequence[ScoreMap], images: Images, *, probabilities: bool = False
    ) -> list[Segmentation]:
        """Turn score maps into label maps of the original size, see `segment`."""
        names, palette = self.config.class_names, self.config.palette
        return segment(outputs, images, class_names=names, palette=palette, probabilities=probabilities)

    def predict_batch(
        self, images: Images, *, preprocess: SegmentationPreprocess | None = None, probabilities: bool = False
    ) -> list[Segmentation]:
        """Run one preprocessed batch through the network and post-process it; the mode is the caller's."""
        with torch.inference_mode():
            outputs = self.run(images.to(self.device, self.dtype), preprocess=preprocess)
            return self.postprocess(outputs, images, probabilities=probabilities)

    def loss(self, images: Images, targets: Tensor) -> dict[str, Tensor]:
        """Return the named losses of a batch.

        Args:
            images: the batch, of one size.
            targets: (N, H, W) integer class of every pixel, 255 where there is none.

        Returns:
            Scalars that training adds up: "cross_entropy" and, with an auxiliary head, "auxiliary_cross_entropy"; or
            "class", "mask" and "dice" of the last layer of Mask2Former, and of the others as "layer0_class" and so on.

        Raises:
            ValueError: the targets do not fit the images or hold other classes, or UperNet is given one image.
        """
        check_targets(targets, images, self.config.rows)
        whole_batch = len(images) * parallel.world()
        if isinstance(self.head, UperNetHead) and self.head.training and whole_batch < self.head.config.least_batch:
            raise ValueError(
                "UperNet averages the coarsest map of each image to 1 x 1 and normalizes it over the batch, which in "
                f"training needs at least 2 images, given {len(images)}; take a batch of 2 (data.batch_size=2), or "
                "another head"
            )
        features = self.backbone(images.pixels)
        if isinstance(self.head, Mask2FormerHead):
            return mask2former_losses(self.head.layer_outputs(features), targets, self.head.config)
        loss = partial(pixel_loss, targets=targets, count_ignored_pixels=self.head.config.count_ignored_pixels)
        losses = {"cross_entropy": loss(self.head(features))}
        if isinstance(self.head, UperNetHead) and (extra := self.head.auxiliary_logits(features)) is not None:
            losses["auxiliary_cross_entropy"] = self.head.config.auxiliary_weight * loss(extra)
        return losses


def build_head(
    config: HeadConfig, in_channels: Sequence[int], num_rows: int, *, backend: str = "auto"
) -> UperNetHead | SegFormerHead | Mask2FormerHead:
    """Return the head that a configuration describes, with `num_rows` outputs (and the "nothing" of Mask2Former)."""
    if isinstance(config, UperNetConfig):
        return UperNetHead(config, in_channels, num_rows)
    if isinstance(config, SegFormerConfig):
        return SegFormerHead(config, in_channels, num_rows)
    return Mask2FormerHead(config, in_channels, num_rows, backend=backend)
