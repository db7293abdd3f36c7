"""From a row of the catalog to the classifier that its checkpoint holds."""

from __future__ import annotations

from internimage.checkpoints.catalog import info
from internimage.classification.head import HEAD_KINDS, HeadKind
from internimage.classification.model import ClassifierConfig
from internimage.classification.preprocess import PreprocessConfig


def published_config(name: str) -> ClassifierConfig:
    """Return the classifier of a published checkpoint.

    Args:
        name: a name of the catalog.

    Raises:
        ValueError: the row is no classifier, or its backbone is not built by this release.

    Example:
        >>> published_config("internimage_h_22kto1k_640").preprocess.size
        640
    """
    entry = info(name)
    backbone, head = entry.backbone_config, head_of(entry.head)
    if entry.task != "classification" or backbone is None or head is None or entry.num_classes is None:
        raise ValueError(f"{entry.name} is no classifier that this release builds; its task is {entry.task}")
    preprocess = PreprocessConfig(size=int(entry.input_size or 224))
    return ClassifierConfig(backbone, entry.num_classes, head, preprocess, entry.class_names)


def head_of(name: str) -> HeadKind | None:
    """Return the kind of a head by its name, None for heads of other models."""
    return next((kind for kind in HEAD_KINDS if kind == name), None)
