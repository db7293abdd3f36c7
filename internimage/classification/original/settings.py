"""Original-style settings of classifiers and ours, in both directions; see `backbones.original.settings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from internimage.backbones.original.settings import (
    METADATA_TYPE,
    backbone_from_settings,
    backbone_to_settings,
    flag,
    integer,
    number,
    read_settings,
)
from internimage.classification.head import HeadKind
from internimage.classification.model import ClassifierConfig
from internimage.classification.preprocess import ClassificationPreprocess


def classifier_from_settings(
    settings: Mapping[str, Any],
    *,
    preprocess: ClassificationPreprocess | None = None,
    class_names: tuple[str, ...] | None = None,
) -> ClassifierConfig:
    """Return the classifier that original settings describe, see `backbone_from_settings`.

    Without `preprocess` images get the size that the settings state, or the default.

    Raises:
        ValueError: a setting is missing, unknown or not supported.
    """
    values = read_settings(settings)
    head: HeadKind = "attention_pool" if flag(values, "use_clip_projector") else "conv"
    if values["type"] == METADATA_TYPE:
        head = "attention_pool_metadata"
    if preprocess is None:
        sized = values["img_size"] is not None
        preprocess = ClassificationPreprocess(size=integer(values, "img_size")) if sized else ClassificationPreprocess()
    return ClassifierConfig(
        backbone=backbone_from_settings(settings),
        num_classes=integer(values, "num_classes"),
        head=head,
        preprocess=preprocess,
        class_names=class_names,
        conv_head_ratio=number(values, "cls_scale"),
    )


def classifier_to_settings(config: ClassifierConfig) -> dict[str, Any]:
    """Return the constructor arguments of the original for a classifier; the inverse of `classifier_from_settings`."""
    settings = {
        **backbone_to_settings(config.backbone),
        "num_classes": config.num_classes,
        "cls_scale": config.conv_head_ratio,
        "use_clip_projector": config.head != "conv",
    }
    return {**settings, "type": METADATA_TYPE} if config.head == "attention_pool_metadata" else settings
