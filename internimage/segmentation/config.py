"""The settings of segmentors: typed, complete, and enough to rebuild one.

Shape legend: C channels of a head, K classes, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from internimage.flow import ModelConfig
from internimage.ranges import Length, Range, Ranged
from internimage.segmentation.preprocess import SegmentationPreprocess
from internimage.types import Palette

if TYPE_CHECKING:
    from typing_extensions import Self

Width = Annotated[int, Range(1, 8192)]
Hidden = Annotated[int, Range(1, 65_536)]
Layers = Annotated[int, Range(1, 64)]
Share = Annotated[float, Range(0.0, 1.0)]
Weight = Annotated[float, Range(0.0, 1e6)]


@dataclass(frozen=True)
class UperNetConfig(Ranged):
    """Settings of a UperNet head.

    Args:
        kind: tells the head in files.
        channels: width C.
        pool_scales: sides of the pooled maps.
        dropout: fraction of channels that training drops in front of the classifier, 0..1.
        auxiliary_channels: width of the second classifier that training puts on level 2, or None for none.
        auxiliary_weight: weight of its loss.
        count_ignored_pixels: divide the loss by all pixels, not only by those with a label, as the published models
            were trained.
    """

    num_layers: ClassVar[int] = 0

    kind: Literal["upernet"] = "upernet"
    channels: Width = 512
    pool_scales: Annotated[tuple[Annotated[int, Range(1, 64)], ...], Length(1, 16)] = (1, 2, 3, 6)
    dropout: Share = 0.1
    auxiliary_channels: Width | None = 256
    auxiliary_weight: Weight = 0.4
    count_ignored_pixels: bool = False

    @property
    def least_batch(self) -> int:
        """Smallest batch in training: of a map that is pooled to 1 x 1, batch norm gets one value of each image."""
        return 2 if 1 in self.pool_scales else 1


@dataclass(frozen=True)
class SegFormerConfig(Ranged):
    """Settings of a SegFormer head.

    Args:
        kind: tells the head in files.
        channels: width C.
        dropout: fraction of channels that training drops in front of the classifier, 0..1.
        count_ignored_pixels: divide the loss by all pixels, not only by those with a label, as the published models
            were trained.
    """

    num_layers: ClassVar[int] = 0

    kind: Literal["segformer"] = "segformer"
    channels: Width = 256
    dropout: Share = 0.1
    count_ignored_pixels: bool = False


@dataclass(frozen=True)
class Mask2FormerConfig(Ranged):
    """Settings of a Mask2Former head; the defaults are those of the smaller published ones.

    Args:
        kind: tells the head in files.
        channels: width C of both decoders, a multiple of 32.
        num_queries: Q, the most class regions that an image can have.
        num_heads: attention heads of both decoders.
        encoder_layers: layers of the pixel decoder.
        encoder_hidden_channels: width of their feed-forward parts.
        encoder_points: places that a head of theirs looks at in each level.
        encoder_softmax: normalize their attention weights.
        decoder_layers: layers of the transformer decoder.
        decoder_hidden_channels: width of their feed-forward parts.
        loss_points: points of a mask that the loss looks at.
        oversample_ratio: candidates of each such point.
        importance_ratio: fraction of the points taken where the mask is least certain, 0..1.
        class_weight: weight of the classification loss and cost.
        mask_weight: weight of the binary cross entropy of masks.
        dice_weight: weight of the dice loss of masks.
        no_object_weight: weight of queries without a region in the classification loss.
    """

    kind: Literal["mask2former"] = "mask2former"
    channels: Width = 256
    num_queries: Annotated[int, Range(1, 10_000)] = 100
    num_heads: Annotated[int, Range(1, 256)] = 8
    encoder_layers: Layers = 6
    encoder_hidden_channels: Hidden = 1024
    encoder_points: Annotated[int, Range(1, 64)] = 4
    encoder_softmax: bool = True
    decoder_layers: Layers = 9
    decoder_hidden_channels: Hidden = 2048
    loss_points: Annotated[int, Range(1, 1_000_000)] = 12544
    oversample_ratio: Annotated[float, Range(1.0, 100.0)] = 3.0
    importance_ratio: Share = 0.75
    class_weight: Weight = 2.0
    mask_weight: Weight = 5.0
    dice_weight: Weight = 5.0
    no_object_weight: Weight = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels % 32 or self.channels % self.num_heads:
            raise ValueError(
                f"channels must be a multiple of 32 and of num_heads, given {self.channels} channels and "
                f"{self.num_heads} heads"
            )

    @property
    def num_layers(self) -> int:
        """Layers of both decoders."""
        return self.encoder_layers + self.decoder_layers


HeadConfig = UperNetConfig | SegFormerConfig | Mask2FormerConfig
# The published heads by name, and small ones.
HEADS: dict[str, HeadConfig] = {
    "upernet": UperNetConfig(),
    "segformer": SegFormerConfig(),
    "mask2former": Mask2FormerConfig(),
    "mask2former_large": Mask2FormerConfig(
        channels=1024, num_queries=200, num_heads=32, encoder_hidden_channels=4096, decoder_hidden_channels=4096
    ),
    "mask2former_flash": Mask2FormerConfig(num_queries=200, encoder_hidden_channels=2048),
    "mask2former_flash_raw": Mask2FormerConfig(num_queries=200, encoder_hidden_channels=2048, encoder_softmax=False),
    "upernet_small": UperNetConfig(channels=48, auxiliary_channels=64, dropout=0.0),
    "mask2former_small": Mask2FormerConfig(
        channels=128,
        num_queries=40,
        num_heads=4,
        encoder_layers=3,
        encoder_hidden_channels=256,
        decoder_layers=3,
        decoder_hidden_channels=512,
        loss_points=2304,
    ),
}


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
