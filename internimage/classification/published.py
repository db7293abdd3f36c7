"""From a row of the catalog to the classifier that its checkpoint holds."""

from __future__ import annotations

from internimage.checkpoints.catalog import model_row
from internimage.classification.head import head_named
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
    entry, backbone, num_classes = model_row(name, "classification")
    preprocess = PreprocessConfig(size=int(entry.input_size or 224))
    return ClassifierConfig(backbone, num_classes, head_named(entry.head), preprocess, entry.class_names)
