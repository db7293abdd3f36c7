"""What the caller of `create` asks of a segmentor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from internimage.backbones import BackboneConfig, variant
from internimage.data.images.normalize import for_channels
from internimage.segmentation import (
    Mask2FormerConfig,
    PreprocessConfig,
    SegFormerConfig,
    SegmentorConfig,
    UperNetConfig,
)
from internimage.segmentation.model import HeadConfig

SEGMENTORS: dict[str, type[HeadConfig]] = {
    "upernet": UperNetConfig,
    "segformer": SegFormerConfig,
    "mask2former": Mask2FormerConfig,
}
# Detectors and segmentors of these sizes were trained without branch scales, the others with scales that start at 1.
WITHOUT_SCALES = ("internimage_pico", "internimage_h", "internimage_g")

Merge = Callable[[str | BackboneConfig], BackboneConfig]


@dataclasses.dataclass(frozen=True)
class SegmentorWish:
    """What the caller of `create` asks of a segmentor; None leaves the choice to the weights."""

    architecture: str
    backbone: str | BackboneConfig | None
    num_classes: int | None
    class_names: tuple[str, ...] | None
    head: object
    preprocess: object

    def __post_init__(self) -> None:
        if self.num_classes is not None and self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names must hold {self.num_classes} names, given {len(self.class_names)}")
        kind = SEGMENTORS[self.architecture]
        if self.head is not None and not isinstance(self.head, kind):
            raise TypeError(f"the head of {self.architecture!r} must be a {kind.__name__}, given {self.head!r}")
        if self.preprocess is not None and not isinstance(self.preprocess, PreprocessConfig):
            raise TypeError(
                f"preprocess must be an internimage.segmentation.PreprocessConfig, given {self.preprocess!r}"
            )

    @property
    def classes(self) -> int | None:
        """Number of classes asked for."""
        return self.num_classes if self.class_names is None else len(self.class_names)

    def fresh(self, merge: Merge) -> SegmentorConfig:
        """Return the segmentor to build with a fresh head; `merge` adds what weights and caller say of the backbone."""
        if self.backbone is None or self.classes is None:
            raise ValueError(
                f"a segmentor needs a backbone and its classes: create({self.architecture!r}, "
                "backbone='internimage_t', num_classes=...)"
            )
        size = self.backbone
        if isinstance(size, str) and size not in WITHOUT_SCALES:
            size = dataclasses.replace(variant(size), layer_scale=1.0)
        return SegmentorConfig(
            backbone=merge(size),
            num_classes=self.classes,
            head=self.head if isinstance(self.head, HeadConfig) else SEGMENTORS[self.architecture](),
            preprocess=self.preprocess if isinstance(self.preprocess, PreprocessConfig) else PreprocessConfig(),
            class_names=self.class_names,
        )

    def on(self, found: SegmentorConfig, merge: Merge) -> SegmentorConfig:
        """Return the segmentor to build on the weights of another."""
        if found.head.kind != self.architecture:
            raise ValueError(
                f"the weights are those of a {found.head.kind!r}, asked for {self.architecture!r}; to take only their "
                f"backbone, load it with create(size, weights=...) and save it"
            )
        changed = self.classes is not None and self.classes != found.num_classes
        config = found
        if changed:
            config = dataclasses.replace(
                found, num_classes=self.classes or 0, class_names=None, palette=None, classifier_rows=None
            )
        backbone = merge(self.backbone or found.backbone)
        own = isinstance(self.preprocess, PreprocessConfig)
        return dataclasses.replace(
            config,
            backbone=backbone,
            head=self.head if isinstance(self.head, HeadConfig) else found.head,
            preprocess=self.preprocess if own else for_channels(found.preprocess, backbone.in_chans),
            class_names=self.class_names or config.class_names,
        )
