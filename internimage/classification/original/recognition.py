"""The classifier that a checkpoint holds: the first of several descriptions that is there.

For the architecture: the configuration in a file of ours, the caller's settings, `config.json` of a folder, the catalog
row, a configuration stored by the original training, and at last names and shapes. Preprocessing and class names come
from the file, the catalog row, or what is published for the size and the number of classes.
"""

from __future__ import annotations

import dataclasses

from internimage.backbones.original.shapes import Shapes, infer_backbone, rows
from internimage.checkpoints.catalog import info
from internimage.classification.model import ClassifierConfig
from internimage.classification.original.names import head_kind
from internimage.classification.original.settings import classifier_from_settings
from internimage.classification.preprocess import ClassificationPreprocess
from internimage.classification.published import published_config, published_size
from internimage.data.labels import imagenet_names
from internimage.flow import Checkpoint, Settings
from internimage.settings import from_plain


def recognize(checkpoint: Checkpoint, row: str | None, settings: Settings | None) -> ClassifierConfig | None:
    """Return the classifier that a checkpoint holds, None for larger models, see `internimage.flow.Recognize`.

    Raises:
        ValueError: nothing describes it, not even its names and shapes.
    """
    if checkpoint.config is not None:
        return checkpoint.config if isinstance(checkpoint.config, ClassifierConfig) else None
    if checkpoint.is_part:
        return None
    stated = checkpoint.stated
    published = _published(checkpoint, row)
    given = settings or (stated.settings if stated.is_folder or published is None else None)
    if given is not None:
        config = classifier_from_settings(given)
    elif published is not None:
        config = dataclasses.replace(published, head=head_kind(checkpoint.shapes.keys()) or "conv")
    else:
        config = infer_classifier(checkpoint.shapes, checkpoint.source)
    if stated.preprocess is not None:
        preprocess = from_plain(ClassificationPreprocess, stated.preprocess)
    else:
        preprocess = config.preprocess if published is None else published.preprocess
    names = imagenet_names(config.num_classes) if published is None else published.class_names
    return dataclasses.replace(config, preprocess=preprocess, class_names=stated.class_names or names)


def _published(checkpoint: Checkpoint, row: str | None) -> ClassifierConfig | None:
    """Return the classifier of a row whose number of classes the file has; a fine-tuned file may have others."""
    if row is None or not (entry := info(row)).is_built or entry.task != "classification":
        return None
    outputs = checkpoint.shapes.get("head.weight", (None,))[0]
    return published_config(row) if outputs == entry.num_classes else None


def infer_classifier(shapes: Shapes, source: str) -> ClassifierConfig:
    """Tell the classifier from names and shapes, with the preprocessing published for its size."""
    head = head_kind(shapes)
    name, backbone = infer_backbone(shapes, source)
    if head is None or not shapes.get("head.weight"):
        raise ValueError(f"{source} holds no classification head; take its backbone with create({name!r}, weights=...)")
    num_classes = shapes["head.weight"][0]
    return ClassifierConfig(
        backbone=backbone,
        num_classes=num_classes,
        head=head,
        preprocess=ClassificationPreprocess(size=published_size(name, num_classes)),
        conv_head_ratio=rows(shapes, "conv_head.0.weight") / backbone.widths[-1] if head == "conv" else 1.5,
    )
