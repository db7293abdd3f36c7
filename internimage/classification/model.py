"""The classifier: preprocess -> backbone -> head -> postprocess.

Shape legend: N images, C channels of the input, H W map, K classes, M metadata values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from torch import Tensor

from internimage.backbones.internimage import init_weights
from internimage.classification.head import SPATIAL_SIZE, TEMPORAL_SIZE, HeadKind, MetadataHead, build_head
from internimage.classification.loss import classification_loss
from internimage.classification.postprocess import classify
from internimage.classification.preprocess import ClassificationPreprocess, Observation, encode_observation, prepare
from internimage.data.labels import imagenet_names
from internimage.flow import ImageInput, ModelConfig, RunOptions, TaskModel
from internimage.ranges import Range
from internimage.types import Classification, Images

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


@dataclass(frozen=True)
class ClassifierConfig(ModelConfig):
    """Everything needed to rebuild a classifier.

    Args:
        backbone: architecture of the backbone.
        num_classes: K, at least 1.
        head: "conv" (T to XL), "attention_pool" (H, G) or "attention_pool_metadata" (iNaturalist).
        preprocess: how images become pixels; its statistics are those of the channels that the backbone reads.
        class_names: K names, or None.
        conv_head_ratio: width of the convolution of a "conv" head over the width of the last level.
    """

    header_task: ClassVar[str] = "classification"

    head: HeadKind = "conv"
    preprocess: ClassificationPreprocess = field(default_factory=ClassificationPreprocess)
    class_names: tuple[str, ...] | None = None
    conv_head_ratio: Annotated[float, Range(1e-3, 64.0)] = 1.5

    @property
    def kind(self) -> HeadKind:
        """Layout of the parameters: the kind of the head."""
        return self.head

    def with_classes(self, num_classes: int, **changes: Any) -> Self:
        """Return the configuration for another number of classes; those of ImageNet-1k are among those of 22k."""
        names = imagenet_names(1000) if (self.num_classes, num_classes) == (21841, 1000) else None
        return super().with_classes(num_classes, class_names=names, **changes)


class Classifier(TaskModel[Classification]):
    """An InternImage classifier with its preprocessing and class names.

    Args:
        config: architecture, preprocessing and class names.
        run: `activation_checkpointing`, `frozen_stages` and `backend`, see `TaskModel`.

    Example:
        >>> import numpy as np
        >>> from internimage.backbones import variant
        >>> model = Classifier(ClassifierConfig(variant("internimage_pico"), num_classes=10))
        >>> [result] = model.predict([np.zeros((64, 80, 3), dtype=np.uint8)])
        >>> result.scores.shape
        torch.Size([10])
    """

    task = "classification"
    class_layers = re.compile(r"head\.(image\.)?classifier\.")
    config: ClassifierConfig  # pyright: ignore[reportIncompatibleVariableOverride]  # never assigned anew, so it may be narrower

    def __init__(self, config: ClassifierConfig, **run: Unpack[RunOptions]) -> None:
        super().__init__(config, **run)
        self.head = build_head(config.head, config.backbone, config.num_classes, conv_ratio=config.conv_head_ratio)
        self.head.apply(init_weights)

    @property
    def takes_metadata(self) -> bool:
        """Whether the head reads the date and the place of an image."""
        return isinstance(self.head, MetadataHead)

    def preprocess(
        self, images: Sequence[ImageInput], observations: Sequence[Observation | None] | None = None
    ) -> Images:
        """Read, resize, crop and normalize images.

        `observations` are date and place of each image, for models that take metadata; None where unknown.

        Raises:
            ValueError: an image cannot be read, or `observations` is given to a model that does not take it.
        """
        if observations is not None:
            self._check_observations(images, observations)
        batch = prepare(images, self.config.preprocess)
        if not self.takes_metadata:
            return batch
        known = observations if observations is not None else [None] * len(images)
        return Images(batch.pixels, batch.valid_hw, batch.original_hw, encode_observation(known))

    def predict(
        self,
        images: Sequence[ImageInput],
        *,
        batch_size: int = 8,
        observations: Sequence[Observation | None] | None = None,
    ) -> list[Classification]:
        """Answer for each image, see `TaskModel.predict`.

        Args:
            images: images, see `TaskModel.predict`.
            batch_size: images in one forward pass, at least 1.
            observations: date and place of each image, for models that take metadata; None where unknown.

        Raises:
            TypeError: `images` is one image instead of a list of them.
            ValueError: an image cannot be read, or `observations` has another length than `images` or is given to a
                model that does not take it.
        """
        if observations is None:
            return super().predict(images, batch_size=batch_size)
        self._check_observations(images, observations)
        return self.predict_in_batches(
            images,
            lambda part: self.preprocess(images[part], observations[part]),
            self.predict_batch,
            batch_size=batch_size,
        )

    def _check_observations(self, images: Sequence[ImageInput], observations: Sequence[Observation | None]) -> None:
        if not self.takes_metadata:
            raise ValueError("this classifier does not use observations (date and place); leave them out")
        if len(observations) != len(images):
            raise ValueError(f"observations must hold one entry per image: {len(images)}, given {len(observations)}")

    def forward(self, pixels: Tensor, valid_hw: Tensor | None = None, metadata: Tensor | None = None) -> Tensor:
        """Return logits.

        Args:
            pixels: (N, C, H, W) normalized pixels.
            valid_hw: ignored; a classifier looks at the whole image.
            metadata: (N, 7) encoded date and place, zeros where unknown; for models that take metadata.

        Returns:
            (N, K) logits.
        """
        features = self.backbone(pixels)
        if not self.takes_metadata:
            return self.head(features)
        if metadata is None:
            metadata = pixels.new_zeros(pixels.shape[0], TEMPORAL_SIZE + SPATIAL_SIZE)
        return self.head(features, metadata)

    def run(self, images: Images) -> Tensor:
        """Call `forward` on a batch that is already on the right device."""
        return self(images.pixels, images.valid_hw, images.metadata)

    def postprocess(self, outputs: Tensor, images: Images) -> list[Classification]:
        """Turn (N, K) logits into results."""
        return classify(outputs, images, self.config.class_names)

    def loss(self, images: Images, targets: Tensor, *, label_smoothing: float = 0.0) -> dict[str, Tensor]:
        """Return {"cross_entropy": scalar} for (N,) class indices or (N, K) soft targets."""
        return {"cross_entropy": classification_loss(self.run(images), targets, label_smoothing=label_smoothing)}

    def pool(self, pixels: Tensor) -> Tensor:
        """Return the (N, F) image vectors in front of the last linear layer."""
        return self.head.pool(self.backbone(pixels))
