"""From a row of the catalog to the classifier that its checkpoint holds."""

from __future__ import annotations

from internimage.checkpoints.catalog import catalog, model_row
from internimage.classification.head import head_named
from internimage.classification.model import ClassifierConfig
from internimage.classification.preprocess import ClassificationPreprocess


def published_config(name: str) -> ClassifierConfig:
    """Return the classifier of a published checkpoint, given by its name in the catalog.

    Raises:
        ValueError: the row is no classifier, or its backbone is not built by this release.

    Example:
        >>> published_config("internimage_h_22kto1k_640").preprocess.size
        640
    """
    entry, backbone, num_classes = model_row(name, "classification")
    preprocess = ClassificationPreprocess(size=int(entry.input_size or 224))
    return ClassifierConfig(backbone, num_classes, head_named(entry.head), preprocess, entry.class_names)


def published_size(backbone: str, num_classes: int) -> int:
    """Return the side in pixels of the images that classifiers of a size were published for, best for as many classes.

    Example:
        >>> published_size("internimage_g", 1000), published_size("internimage_g", 7)
        (512, 384)
    """
    rows = [row for row in catalog().values() if row.task == "classification" and row.backbone == backbone]
    rows = [row for row in rows if row.source != "bundled"]
    best = next((row for row in rows if row.num_classes == num_classes), rows[0] if rows else None)
    return 224 if best is None else int(best.input_size or 224)
