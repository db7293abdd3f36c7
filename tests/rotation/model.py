"""The model: image -> square of S pixels -> backbone -> linear layer -> turn.

Shape legend: N images, S side in pixels, 4 turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.backbones import BackboneConfig
from internimage.data.images.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalization, normalize
from internimage.data.images.raster import original_size, pixels_of
from internimage.data.images.read import ImageInput, read_image
from internimage.flow import RunOptions, TaskModel
from internimage.types import Images

if TYPE_CHECKING:
    from typing_extensions import Unpack

TURNS = ("upright", "left", "upside down", "right")


@dataclass(frozen=True)
class RotationPreprocess(Normalization):
    """Squares of `side` pixels."""

    side: int = 32
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    value_range: tuple[float, float] | None = None

    def network_hw(self, original_hw: tuple[int, int]) -> tuple[int, int]:
        return self.side, self.side


@dataclass(frozen=True)
class RotationConfig:
    """Everything needed to rebuild a model."""

    header_task: ClassVar[str] = "rotation"
    kind: ClassVar[str] = "rotation"
    rows: ClassVar[int] = len(TURNS)
    num_head_layers: ClassVar[int] = 1

    backbone: BackboneConfig
    num_classes: int = len(TURNS)
    preprocess: RotationPreprocess = field(default_factory=RotationPreprocess)
    class_names: tuple[str, ...] | None = TURNS

    @property
    def num_blocks(self) -> int:
        return self.backbone.num_blocks

    def with_classes(self, num_classes: int) -> RotationConfig:
        return replace(self)


@dataclass(frozen=True)
class Turn:
    """A prediction: the turn, its probability, and (height, width) of the image."""

    name: str
    score: float
    original_hw: tuple[int, int]


class Rotation(TaskModel[Turn]):
    """Tells how an image was turned."""

    task = "rotation"
    config: RotationConfig

    def __init__(self, config: RotationConfig, **run: Unpack[RunOptions]) -> None:
        super().__init__(config, **run)
        self.head = nn.Linear(config.backbone.widths[-1], len(TURNS))

    def preprocess(self, images: Sequence[ImageInput]) -> Images:
        own = self.config.preprocess
        read = [read_image(image, own.reading, network_hw=own.network_hw) for image in images]
        squares = [torch.from_numpy(pixels_of(image.resize((own.side, own.side)))) for image in read]
        pixels = torch.stack([normalize(square, mean=own.mean, std=own.std).permute(2, 0, 1) for square in squares])
        return Images(pixels, torch.full((len(read), 2), own.side), tuple(map(original_size, read)))

    def forward(self, pixels: Tensor, valid_hw: Tensor | None = None) -> Tensor:
        return self.head(self.backbone(pixels).maps[-1].mean(dim=(2, 3)))  # (N, 4)

    def postprocess(self, outputs: Tensor, images: Images) -> list[Turn]:
        best = outputs.float().softmax(dim=-1).cpu().max(dim=-1)
        found = zip(best.values.tolist(), best.indices.tolist(), images.original_hw, strict=True)
        return [Turn(TURNS[index], score, original_hw) for score, index, original_hw in found]

    def loss(self, images: Images, targets: Tensor) -> dict[str, Tensor]:
        return {"turn": F.cross_entropy(self.run(images), targets)}
