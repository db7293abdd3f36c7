"""What all detectors share: preprocess -> forward -> postprocess, and the way from a configuration to a network.

Shape legend: N images, C H W channels and size of the input.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from internimage.detection.config import DINOConfig, RCNNConfig
from internimage.detection.postprocess import RawDetections, Rows, to_detections
from internimage.detection.preprocess import prepare
from internimage.flow import ImageInput, TaskModel
from internimage.types import Detections, DetectionTargets, Images

DetectorConfig = RCNNConfig | DINOConfig


class Detector(TaskModel[Detections]):
    """A detector with its preprocessing and class names; see `RCNN` and `DINO`."""

    task = "detection"
    config: DetectorConfig  # pyright: ignore[reportIncompatibleVariableOverride]  # never assigned anew, so it may be narrower

    @abstractmethod
    def forward(self, pixels: Tensor, valid_hw: Tensor | None = None) -> RawDetections:
        """Find objects.

        Args:
            pixels: (N, C, H, W) normalized and padded pixels.
            valid_hw: (N, 2) sizes before padding, or None when nothing is padded.

        Returns:
            The objects of all images, in pixels of the input.
        """

    @abstractmethod
    def loss(self, images: Images, targets: Sequence[DetectionTargets]) -> dict[str, Tensor]:
        """Return the named scalar losses of a batch and what is in its images, all on the model's device."""

    def run(self, images: Images) -> RawDetections:
        """Call `forward` on the images of a batch that is already on the right device, one padded size at a time.

        Padding reaches into an image through the layers, so each one gets the padding that it has alone, and its
        objects do not depend on its neighbors. `forward` takes a batch as it is.
        """
        groups = self._padded_sizes(images)
        if set(groups) <= {tuple(images.pixels.shape[2:])}:
            return self(images.pixels, images.valid_hw)
        found: list[RawDetections] = []
        for (height, width), numbers in groups.items():
            index = torch.tensor(numbers, device=images.pixels.device)
            pixels = images.pixels[index, :, :height, :width].contiguous(memory_format=torch.channels_last)
            raw = self(pixels, images.valid_hw[index])
            found.append(raw._replace(image=index[raw.image]))
        joined = RawDetections.join(found)
        return joined.select(joined.image.argsort(stable=True))

    def _padded_sizes(self, images: Images) -> dict[tuple[int, int], list[int]]:
        """Numbers of the images of each size that they would be padded to alone."""
        divisor, most = self.config.preprocess.divisor, torch.tensor(images.pixels.shape[2:])
        sizes = torch.minimum((images.valid_hw.cpu() + divisor - 1) // divisor * divisor, most)
        groups: dict[tuple[int, int], list[int]] = {}
        for i, (height, width) in enumerate(sizes.tolist()):
            groups.setdefault((height, width), []).append(i)
        return groups

    def preprocess(self, images: Sequence[ImageInput]) -> Images:
        """Read, resize, normalize and pad images, see `prepare`."""
        return prepare(images, self.config.preprocess)

    def postprocess(self, outputs: RawDetections, images: Images) -> list[Detections]:
        """Turn raw outputs into one result for each image, in original coordinates."""
        return to_detections(outputs, images, self.config.class_names, mask_threshold=self.mask_threshold)

    @property
    def mask_threshold(self) -> float:
        """Probability from which a pixel belongs to an object, 0..1."""
        return 0.5

    @property
    def mask_side(self) -> int | None:
        """Side S of the probability map of an object, None without masks."""
        return None

    @property
    @abstractmethod
    def coarsest_stride(self) -> int:
        """Pixels for a cell of the coarsest level."""

    @property
    def has_free_batch(self) -> bool:
        """Whether one exported graph serves for any number of images."""
        return True

    def in_rows(self, found: RawDetections, number: int, rows: int) -> Rows:
        """Put the objects of `number` images into `rows` rows for each, without a branch or loop over their number."""
        return Rows.of(found, number, rows)

    def predict(
        self, images: Sequence[ImageInput], *, batch_size: int = 1, score_threshold: float = 0.0
    ) -> list[Detections]:
        """Find the objects of each image, see `TaskModel.predict`.

        Args:
            images: images, see `TaskModel.predict`.
            batch_size: images read at a time, at least 1; those of equal padded size share a forward pass.
            score_threshold: objects below are left out, 0..1; 0 keeps whatever the model reports.

        Raises:
            TypeError: `images` is one image instead of a list of them.
            ValueError: an image cannot be read, or `score_threshold` is out of range.
        """
        if not 0.0 <= score_threshold <= 1.0:
            raise ValueError(f"score_threshold must lie in 0..1, given {score_threshold}")
        found = super().predict(images, batch_size=batch_size)
        return [result.filter(score_threshold=score_threshold) for result in found] if score_threshold else found

    def check_targets(self, images: Images, targets: Sequence[DetectionTargets], *, masks: bool) -> None:
        """Raise unless there is one target for each image with fitting labels and, where wanted, masks."""
        if not len(images):
            raise ValueError("a loss needs at least one image, given an empty batch")
        if len(targets) != len(images):
            raise ValueError(f"targets must hold one entry per image: {len(images)}, given {len(targets)}")
        height, width = images.pixels.shape[2:]
        for i, target in enumerate(targets):
            number, labels = len(target), target.labels
            if tuple(target.boxes_xyxy.shape) != (number, 4):
                raise ValueError(
                    f"targets[{i}].boxes_xyxy must be ({number}, 4), given {tuple(target.boxes_xyxy.shape)}"
                )
            if number and not 0 <= int(labels.min()) <= int(labels.max()) < self.config.num_classes:
                raise ValueError(
                    f"targets[{i}].labels must lie in 0..{self.config.num_classes - 1}, given "
                    f"{int(labels.min())}..{int(labels.max())}; is num_classes of the model that of the data?"
                )
            expected, given = (number, height, width), None if target.masks is None else tuple(target.masks.shape)
            if masks and given != expected:
                raise ValueError(f"targets[{i}].masks must be {expected} like the padded batch, given {given}")


def without_small(target: DetectionTargets) -> DetectionTargets:
    """Leave out true boxes without extent, which no box can match."""
    size = target.boxes_xyxy[:, 2:] - target.boxes_xyxy[:, :2]
    keep = (size > 0).all(dim=1)
    masks = None if target.masks is None else target.masks[keep]
    return replace(target, boxes_xyxy=target.boxes_xyxy[keep], labels=target.labels[keep], masks=masks)


def full_size(pixels: Tensor, valid_hw: Tensor | None) -> Tensor:
    """Return `valid_hw` (N, 2) on the device of the pixels; None means that nothing is padded."""
    if valid_hw is not None:
        return valid_hw.to(pixels.device)
    size = torch.tensor([pixels.shape[2], pixels.shape[3]], device=pixels.device)
    return size.expand(pixels.shape[0], 2)
