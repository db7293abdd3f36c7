"""The settings of detectors: typed, complete, and enough to rebuild one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from internimage.detection.preprocess import DetectionPreprocess
from internimage.flow import ModelConfig
from internimage.ranges import Length, Range, Ranged

Count = Annotated[int, Range(1, 10_000_000)]  # boxes, queries, regions
Share = Annotated[float, Range(0.0, 1.0)]
Weight = Annotated[float, Range(0.0, 1e6)]
Width = Annotated[int, Range(1, 8192)]
Hidden = Annotated[int, Range(1, 65_536)]
Layers = Annotated[int, Range(0, 64)]
Unit = Annotated[float, Range(1e-6, 1e3)]
RegionSide = Annotated[int, Range(1, 128)]


@dataclass(frozen=True)
class AssignConfig(Ranged):
    """Which boxes are examples of an object in training, by their overlap (IoU) with the true boxes.

    Args:
        positive_iou: from this overlap on a box is an example of an object, 0..1.
        negative_iou: below this overlap it is background, 0..1.
        min_positive_iou: lowest overlap of the best box of an object that makes it an example, 0..1.
        match_low_quality: whether the best box of each object is an example even below `positive_iou`.
    """

    positive_iou: Share
    negative_iou: Share
    min_positive_iou: Share
    match_low_quality: bool = True


@dataclass(frozen=True)
class SampleConfig(Ranged):
    """How many boxes of an image are looked at in a training step.

    Args:
        number: boxes drawn, at least 1.
        positive_fraction: largest fraction of examples of objects, 0..1; background fills the rest.
        add_truth: whether the true boxes join the candidates.
    """

    number: Count
    positive_fraction: Share
    add_truth: bool = False


@dataclass(frozen=True)
class ProposalConfig(Ranged):
    """How many proposals of the region proposal network are kept.

    Args:
        pre_nms: best candidates of each level before suppression.
        kept: best candidates of the image after suppression.
        nms_iou: overlap from which the worse of two candidates is dropped, 0..1.
        min_size: candidates must be wider and higher than this, in pixels.
    """

    pre_nms: Count = 1000
    kept: Count = 1000
    nms_iou: Share = 0.7
    min_size: Annotated[float, Range(-1.0, 1e6)] = 0.0


@dataclass(frozen=True)
class BoxLossConfig(Ranged):
    """Loss of box regression.

    Args:
        kind: "l1" or "smooth_l1" on the regression values, or "giou" on boxes.
        weight: factor on the loss.
        beta: where "smooth_l1" changes from a parabola to a line.
    """

    kind: Literal["l1", "smooth_l1", "giou"] = "l1"
    weight: Weight = 1.0
    beta: Weight = 1.0


@dataclass(frozen=True)
class RPNConfig(Ranged):
    """Region proposal network (Source: Faster R-CNN, section 3.1, https://arxiv.org/abs/1506.01497).

    Args:
        channels: width of its hidden convolution.
        strides: pixels for a cell of each level.
        scale: side of a square anchor in cells.
        ratios: height over width of the anchors of a cell.
        box_loss: loss of box regression.
        test: proposals in evaluation.
        train: proposals in training.
        assign: which anchors are examples.
        sample: how many anchors are looked at.
        allowed_border: how far an anchor may leave the image in training, in pixels; -1 for any distance.
    """

    channels: Width = 256
    strides: Annotated[tuple[Annotated[int, Range(1, 1024)], ...], Length(1, 8)] = (4, 8, 16, 32, 64)
    scale: Annotated[float, Range(1e-3, 1024.0)] = 8.0
    ratios: Annotated[tuple[Annotated[float, Range(1e-3, 1e3)], ...], Length(1, 64)] = (0.5, 1.0, 2.0)
    box_loss: BoxLossConfig = field(default_factory=BoxLossConfig)
    test: ProposalConfig = field(default_factory=ProposalConfig)
    train: ProposalConfig = field(default_factory=lambda: ProposalConfig(pre_nms=2000))
    assign: AssignConfig = field(default_factory=lambda: AssignConfig(0.7, 0.3, 0.3))
    sample: SampleConfig = field(default_factory=lambda: SampleConfig(256, 0.5))
    allowed_border: Annotated[int, Range(-1, 1_000_000)] = -1


@dataclass(frozen=True)
class BoxStageConfig(Ranged):
    """One stage of box classification and regression.

    Args:
        num_convs: 3x3 convolutions with batch norm on the region's map.
        conv_channels: their width.
        num_fcs: linear layers behind them, at least 1.
        fc_channels: their width.
        class_agnostic: one regression for all classes instead of one for each.
        stds: units of the four regression values.
        box_loss: loss of box regression; "giou" compares boxes, the others regression values.
        assign: which regions are examples in training.
        sample: how many regions are looked at in training.
        loss_weight: factor on all losses of the stage.
    """

    num_convs: Layers = 0
    conv_channels: Width = 256
    num_fcs: Layers = 2
    fc_channels: Hidden = 1024
    class_agnostic: bool = False
    stds: tuple[Unit, Unit, Unit, Unit] = (0.1, 0.1, 0.2, 0.2)
    box_loss: BoxLossConfig = field(default_factory=BoxLossConfig)
    assign: AssignConfig = field(default_factory=lambda: AssignConfig(0.5, 0.5, 0.5))
    sample: SampleConfig = field(default_factory=lambda: SampleConfig(512, 0.25, add_truth=True))
    loss_weight: Weight = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_fcs < 1:
            raise ValueError(f"num_fcs must be at least 1, given {self.num_fcs}")


@dataclass(frozen=True)
class MaskHeadConfig(Ranged):
    """Head that draws a mask into each box (Source: Mask R-CNN, https://arxiv.org/abs/1703.06870).

    Args:
        num_convs: 3x3 convolutions on the region's map.
        channels: their width.
        roi_size: side of the region's map in cells; the mask has twice as many.
        threshold: probability from which a pixel belongs to the object, 0..1.
    """

    num_convs: Layers = 4
    channels: Width = 256
    roi_size: RegionSide = 14
    threshold: Share = 0.5


@dataclass(frozen=True)
class RCNNConfig(ModelConfig):
    """A two-stage detector: Faster R-CNN, Mask R-CNN, and with several stages their cascades.

    Args:
        backbone: architecture of the backbone.
        num_classes: classes of objects, at least 1; background is not counted.
        channels: width of the feature pyramid.
        pyramid_norm: norm in the feature pyramid: "none" (InternImage) or "layer" (FlashInternImage).
        rpn: region proposal network.
        stages: box stages, one for Faster R-CNN, three for the published cascades.
        last_stage_passes: how often the last stage looks at a region in inference, from 1; a further pass starts from
            the boxes of the one before, and scores are averaged. 1 in all published models.
        mask: mask head of every stage, or None for boxes only.
        roi_size: side of a region's map for boxes, in cells.
        roi_finest_scale: regions of up to twice this side are read from the finest map, in pixels.
        score_threshold: objects below are dropped before suppression, 0..1.
        nms_iou: overlap from which the worse of two boxes of a class is dropped, 0..1.
        max_per_image: largest number of objects in a prediction.
        preprocess: how images become pixels; its statistics are those of the channels that the backbone reads.
        class_names: names of the classes, or None.

    Source: Cascade R-CNN, https://arxiv.org/abs/1712.00726; repeated passes: LocNet, https://arxiv.org/abs/1511.07763.
    """

    header_task: ClassVar[str] = "rcnn_detection"

    channels: Width = 256
    pyramid_norm: Literal["none", "layer"] = "none"
    rpn: RPNConfig = field(default_factory=RPNConfig)
    stages: Annotated[tuple[BoxStageConfig, ...], Length(0, 8)] = (BoxStageConfig(),)
    last_stage_passes: Annotated[int, Range(1, 16)] = 1
    mask: MaskHeadConfig | None = None
    roi_size: RegionSide = 7
    roi_finest_scale: Annotated[int, Range(1, 4096)] = 56
    score_threshold: Share = 0.05
    nms_iou: Share = 0.5
    max_per_image: Count = 100
    preprocess: DetectionPreprocess = field(default_factory=DetectionPreprocess)
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stages:
            raise ValueError("a two-stage detector needs at least one box stage")

    @property
    def kind(self) -> str:
        """Layout of the parameters: "rcnn" with one stage, "cascade_rcnn" with several."""
        return "rcnn" if len(self.stages) == 1 else "cascade_rcnn"

    @property
    def num_head_layers(self) -> int:
        """Layers of the box and mask heads of all stages."""
        masks = 0 if self.mask is None else self.mask.num_convs * len(self.stages)
        return masks + sum(stage.num_convs + stage.num_fcs for stage in self.stages)


@dataclass(frozen=True)
class DenoisingConfig(Ranged):
    """Contrastive denoising, which trains the decoder on true boxes with noise (Source: DINO, section 3.3).

    Args:
        num_queries: denoising queries of an image, shared by its objects.
        label_noise: twice the fraction of wrong labels, 0..2.
        box_noise: largest shift of a corner, in halves of the side.
    """

    num_queries: Annotated[int, Range(0, 100_000)] = 100
    label_noise: Annotated[float, Range(0.0, 2.0)] = 0.5
    box_noise: Annotated[float, Range(0.0, 100.0)] = 1.0


@dataclass(frozen=True)
class SetLossConfig(Ranged):
    """Weights of matching queries with objects and of the losses of matched queries.

    Args:
        class_cost: weight of the focal classification cost in matching.
        box_cost: weight of the L1 distance in matching.
        iou_cost: weight of the generalized IoU in matching.
        class_weight: factor on the focal classification loss.
        box_weight: factor on the L1 loss.
        iou_weight: factor on the generalized IoU loss.
        assisting_weight: factor on the losses from the first backbone of a composite.
    """

    class_cost: Weight = 2.0
    box_cost: Weight = 5.0
    iou_cost: Weight = 2.0
    class_weight: Weight = 1.0
    box_weight: Weight = 5.0
    iou_weight: Weight = 2.0
    assisting_weight: Weight = 0.5


@dataclass(frozen=True)
class DINOConfig(ModelConfig):
    """DINO, a detection transformer (Source: https://arxiv.org/abs/2203.03605).

    Args:
        backbone: architecture of the backbone, or of each backbone of a composite.
        num_classes: classes of objects, at least 1.
        num_backbones: 1, or 2 for the composite backbone CB-InternImage.
        channels: width of the transformer.
        num_levels: maps that it looks at; the first three are the backbone's strides 8, 16 and 32.
        num_queries: objects that are looked for.
        num_encoder_layers: layers over the maps.
        num_decoder_layers: layers over the queries.
        num_heads: attention heads.
        num_points: sampling points of a head on each level.
        feedforward_channels: hidden width of the layers.
        feedforward_slices: pieces into which the hidden width is cut, which saves memory and changes nothing else.
        position_temperature: base of the wave lengths of the position of a cell.
        denoising: denoising in training.
        set_loss: matching and losses.
        max_per_image: largest number of objects in a prediction.
        preprocess: how images become pixels; its statistics are those of the channels that the backbone reads.
        class_names: names of the classes, or None.
    """

    header_task: ClassVar[str] = "dino_detection"

    num_backbones: int = 1
    channels: Width = 256
    num_levels: Annotated[int, Range(1, 8)] = 4
    num_queries: Count = 900
    num_encoder_layers: Layers = 6
    num_decoder_layers: Layers = 6
    num_heads: Annotated[int, Range(1, 256)] = 8
    num_points: Annotated[int, Range(1, 64)] = 4
    feedforward_channels: Hidden = 2048
    feedforward_slices: Annotated[int, Range(1, 64)] = 1
    position_temperature: Annotated[float, Range(1e-3, 1e6)] = 20.0
    denoising: DenoisingConfig = field(default_factory=DenoisingConfig)
    set_loss: SetLossConfig = field(default_factory=SetLossConfig)
    max_per_image: Count = 300
    preprocess: DetectionPreprocess = field(default_factory=DetectionPreprocess)
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_backbones not in (1, 2):
            raise ValueError(f"num_backbones must be 1 or 2, given {self.num_backbones}")
        if self.feedforward_channels % self.feedforward_slices:
            raise ValueError(
                f"feedforward_slices must divide feedforward_channels: {self.feedforward_channels} channels, "
                f"{self.feedforward_slices} slices"
            )

    @property
    def kind(self) -> str:
        """Layout of the parameters: "dino", with "cb_" for a composite and "_sliced" for sliced hidden layers."""
        composite = "cb_" if self.num_backbones > 1 else ""
        return f"{composite}dino{'_sliced' if self.feedforward_slices > 1 else ''}"

    @property
    def num_blocks(self) -> int:
        """Blocks of all backbones."""
        return self.num_backbones * self.backbone.num_blocks

    @property
    def num_head_layers(self) -> int:
        """Layers of encoder and decoder."""
        return self.num_encoder_layers + self.num_decoder_layers
