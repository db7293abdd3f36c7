"""From what the caller of `create` asks for to the segmentor that is built."""

from __future__ import annotations

import dataclasses

from internimage.backbones import BackboneConfig
from internimage.backbones.choice import Wanted
from internimage.flow import on_weights
from internimage.segmentation.config import (
    HeadConfig,
    Mask2FormerConfig,
    SegFormerConfig,
    SegmentorConfig,
    UperNetConfig,
)
from internimage.segmentation.preprocess import SegmentationPreprocess

SEGMENTORS: dict[str, type[HeadConfig]] = {
    "upernet": UperNetConfig,
    "segformer": SegFormerConfig,
    "mask2former": Mask2FormerConfig,
}


def create_config(
    wanted: Wanted, *, head: object, preprocess: object, on: SegmentorConfig | None, backbone: BackboneConfig | None
) -> SegmentorConfig:
    """Return the segmentor that a caller wants, fresh or on the weights of another, see `internimage.flow.Create`.

    Raises:
        TypeError: the head is of another kind, or the preprocessing is that of another task.
        ValueError: what is needed is not given, or the weights are of another segmentor or backbone.
    """
    kind = SEGMENTORS[wanted.architecture]
    if head is not None and not isinstance(head, kind):
        raise TypeError(f"the head of {wanted.architecture!r} must be a {kind.__name__}, given {head!r}")
    if not isinstance(preprocess, SegmentationPreprocess | None):
        raise TypeError(f"preprocess must be an internimage.segmentation.SegmentationPreprocess, given {preprocess!r}")
    if on is not None:
        if on.kind != wanted.architecture:
            raise ValueError(
                f"the weights are those of a {on.kind!r}, asked for {wanted.architecture!r}; to take only their "
                f"backbone, load it with create(size, weights=...) and save it"
            )
        return dataclasses.replace(on_weights(on, wanted, preprocess), head=head or on.head)
    if wanted.backbone is None or wanted.classes is None:
        raise ValueError(
            f"a segmentor needs a backbone and its classes: create({wanted.architecture!r}, "
            "backbone='internimage_t', num_classes=...)"
        )
    return SegmentorConfig(
        backbone=wanted.with_scales().merged(backbone),
        num_classes=wanted.classes,
        head=head or kind(),
        preprocess=preprocess or SegmentationPreprocess(),
        class_names=wanted.class_names,
    )
