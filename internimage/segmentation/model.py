"""The segmentor: preprocess -> backbone -> head -> postprocess.

Shape legend: N images, H W size of the network's input, C channels of the input, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from torch import Tensor

from internimage.flow import ImageInput, ModelConfig, RunOptions, TaskModel
from internimage.ranges import Range
from internimage.segmentation.loss import check_targets, mask2former_losses, pixel_loss
from internimage.segmentation.mask2former.network import Mask2FormerConfig, Mask2FormerHead
from internimage.segmentation.postprocess import ScoredWindow, ScoreMap, segment
from internimage.segmentation.preprocess import SegmentationPreprocess, SlidingWindow, prepare
from internimage.segmentation.segformer import SegFormerConfig, SegFormerHead
from internimage.segmentation.upernet import UperNetConfig, UperNetHead
from internimage.types import Images, Palette, Segmentation

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

HeadConfig = UperNetConfig | SegFormerConfig | Mask2FormerConfig
WINDOWS_AT_ONCE = 4


@dataclass(frozen=True)
class SegmentorConfig(ModelConfig):
    """Everything needed to rebuild a segmentor.

    Args:
        backbone: architecture of the backbone.
        num_classes: K, at least 1.
        head: kind and settings of the head.
        preprocess: how images become pixels; its statistics are those of the channels that the backbone reads.
        class_names: K names, or None.
        palette: K colors (red, green, blue) 0..255, or None.
        classifier_rows: outputs of the last layer where they are more than the classes; the surplus is never answered.
            None for K.
    """

    header_task: ClassVar[str] = "segmentation"

    head: HeadConfig = field(default_factory=UperNetConfig)
    preprocess: SegmentationPreprocess = field(default_factory=SegmentationPreprocess)
    class_names: tuple[str, ...] | None = None
    palette: Palette | None = None
    classifier_rows: Annotated[int, Range(1, 1_000_000)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.palette is not None and len(self.palette) != self.num_classes:
            raise ValueError(f"palette must hold {self.num_classes} entries, given {len(self.palette)}")
        if self.classifier_rows is not None and self.classifier_rows < self.num_classes:
            raise ValueError(
                f"classifier_rows must be at least num_classes ({self.num_classes}), given {self.classifier_rows}"
            )

    @property
    def rows(self) -> int:
        """Outputs of the last layer."""
        return self.classifier_rows or self.num_classes

    @property
    def kind(self) -> str:
        """Layout of the parameters: the kind of the head."""
        return self.head.kind

    @property
    def num_head_layers(self) -> int:
        """Layers of encoder and decoder."""
        return self.head.num_layers

    def with_classes(self, num_classes: int, **changes: Any) -> Self:
        """Return the configuration for another number of classes, which have no names and colors then."""
        return super().with_classes(num_classes, palette=None, classifier_rows=None, **changes)


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
        """Read, resize and normalize images.

        Args:
            images: images, see `TaskModel.predict`.
            config: how, None for the model's own.

        Raises:
            ValueError: an image cannot be read.
        """
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

        Args:
            images: the batch.
            preprocess: says whether windows are cut, None for the model's own; their scores are computed late, when
                the score map is read, so that only a few windows are in memory.
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
        if isinstance(self.head, UperNetHead) and self.head.training and len(images) < self.head.config.least_batch:
            raise ValueError(
                "UperNet averages the coarsest map of each image to 1 x 1 and normalizes it over the batch, which in "
                f"training needs at least 2 images, given {len(images)}; take a batch of 2 (data.batch_size=2), or "
                "another head"
            )
        features = self.backbone(images.pixels)
        if isinstance(self.head, Mask2FormerHead):
            return mask2former_losses(self.head.layer_outputs(features), targets, self.head.config)
        count_ignored = self.head.config.count_ignored_pixels
        logits = self.head(features)
        losses = {"cross_entropy": pixel_loss(logits, targets, count_ignored_pixels=count_ignored)}
        if isinstance(self.head, UperNetHead):
            extra = self.head.auxiliary_logits(features)
            if extra is not None:
                auxiliary_loss = pixel_loss(extra, targets, count_ignored_pixels=count_ignored)
                losses["auxiliary_cross_entropy"] = self.head.config.auxiliary_weight * auxiliary_loss
        return losses


def build_head(
    config: HeadConfig, in_channels: Sequence[int], num_rows: int, *, backend: str = "auto"
) -> UperNetHead | SegFormerHead | Mask2FormerHead:
    """Return the head that a configuration describes.

    Args:
        config: kind and settings.
        in_channels: channels of the four maps of the backbone.
        num_rows: outputs of the last layer, without the "nothing" of Mask2Former.
        backend: operator backend, see `internimage.ops.ms_deform_attn`.
    """
    if isinstance(config, UperNetConfig):
        return UperNetHead(config, in_channels, num_rows)
    if isinstance(config, SegFormerConfig):
        return SegFormerHead(config, in_channels, num_rows)
    return Mask2FormerHead(config, in_channels, num_rows, backend=backend)
