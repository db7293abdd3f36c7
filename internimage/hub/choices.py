"""What the caller of `create` and `load` asks for, checked against what the weights hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from internimage.backbones import BackboneConfig, variant
from internimage.classification import ClassifierConfig, PreprocessConfig
from internimage.classification.head import HeadKind
from internimage.data.images.normalize import for_channels
from internimage.detection import DINOConfig, RCNNConfig
from internimage.hub.recognition import published_names
from internimage.segmentation import SegmentorConfig

Config = TypeVar("Config", bound=ClassifierConfig | RCNNConfig | DINOConfig | SegmentorConfig)
ATTENTION_POOLED = ("internimage_h", "internimage_g")
# What a fresh start may change without making the weights foreign.
FREE_SETTINGS = ("in_chans", "layer_scale", "drop_rate", "drop_path_rate", "drop_path_type", "remove_center")


@dataclasses.dataclass(frozen=True)
class ClassifierWish:
    """What the caller of `create` asks of a classifier; None leaves the choice to the weights."""

    backbone: str | BackboneConfig | None
    num_classes: int | None
    class_names: tuple[str, ...] | None
    head: HeadKind | None
    preprocess: PreprocessConfig | None

    def __post_init__(self) -> None:
        if self.num_classes is not None and self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names must hold {self.num_classes} names, given {len(self.class_names)}")

    @property
    def classes(self) -> int | None:
        """Number of classes asked for."""
        return self.num_classes if self.class_names is None else len(self.class_names)

    def fresh(self, changes: Mapping[str, Any]) -> ClassifierConfig:
        """Return the classifier to build without weights."""
        if self.backbone is None:
            raise ValueError("a classifier needs a backbone: create('classifier', backbone='internimage_t', ...)")
        pooled = self.backbone in ATTENTION_POOLED
        return ClassifierConfig(
            backbone=merged_backbone(self.backbone, None, changes),
            num_classes=1000 if self.classes is None else self.classes,
            head=self.head or ("attention_pool" if pooled else "conv"),
            preprocess=self.preprocess or PreprocessConfig(),
            class_names=self.class_names,
        )

    def on(self, found: ClassifierConfig, changes: Mapping[str, Any]) -> ClassifierConfig:
        """Return the classifier to build on the weights of another."""
        config = found if self.classes is None else with_classes(found, self.classes)
        backbone = merged_backbone(self.backbone, found.backbone, changes)
        return dataclasses.replace(
            config,
            backbone=backbone,
            head=self.head or found.head,
            preprocess=self.preprocess or for_channels(found.preprocess, backbone.in_chans),
            class_names=self.class_names or config.class_names,
        )


def merged_backbone(
    wanted: str | BackboneConfig | None, found: BackboneConfig | None, changes: Mapping[str, Any]
) -> BackboneConfig:
    """Return the backbone to build: what the caller wants, checked against what the weights hold.

    Settings that a fresh start may change come from the caller if they were spelled out, else from the weights.
    """
    config = variant(wanted) if isinstance(wanted, str) else wanted
    if config is None or found is None:
        base = config or found
        assert base is not None
        return dataclasses.replace(base, **changes)
    kept = {name: getattr(found, name) for name in FREE_SETTINGS}
    aligned = dataclasses.replace(config, **kept)
    names = [field.name for field in dataclasses.fields(config) if field.name not in changes]
    differing = [name for name in names if getattr(aligned, name) != getattr(found, name)]
    if differing:
        shown = ", ".join(
            f"{name}: {getattr(config, name)} asked, {getattr(found, name)} in the weights" for name in differing
        )
        raise ValueError(f"the weights are of another backbone than {wanted!r}: {shown}")
    return dataclasses.replace(config if isinstance(wanted, BackboneConfig) else found, **changes)


def with_classes(config: Config, num_classes: int) -> Config:
    """Return the configuration for another number of classes; names survive where the classes do."""
    if num_classes == config.num_classes:
        return config
    if isinstance(config, RCNNConfig | DINOConfig):
        return dataclasses.replace(config, num_classes=num_classes, class_names=None)
    if isinstance(config, SegmentorConfig):
        changed = dict(class_names=None, palette=None, classifier_rows=None)
        return dataclasses.replace(config, num_classes=num_classes, **changed)
    maps = (config.num_classes, num_classes) == (21841, 1000)
    return dataclasses.replace(config, num_classes=num_classes, class_names=published_names(1000) if maps else None)


def reading_as(config: Config, in_chans: int | None, value_range: tuple[float, float] | None) -> Config:
    """Return the configuration for images of other channels or values; None keeps what it has."""
    backbone, preprocess = config.backbone, config.preprocess
    if in_chans is not None and in_chans != backbone.in_chans:
        backbone, preprocess = dataclasses.replace(backbone, in_chans=in_chans), for_channels(preprocess, in_chans)
    if value_range is not None:
        preprocess = dataclasses.replace(preprocess, value_range=value_range)
    return dataclasses.replace(config, backbone=backbone, preprocess=preprocess)


def class_rows(config: ClassifierConfig | RCNNConfig | DINOConfig | SegmentorConfig) -> int:
    """Return how many classes the last layer has rows for."""
    return config.rows if isinstance(config, SegmentorConfig) else config.num_classes
