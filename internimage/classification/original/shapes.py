"""The classifier behind a checkpoint that does not state it, told from its names and shapes."""

from __future__ import annotations

from internimage.backbones.original.shapes import Shapes, infer_backbone, rows
from internimage.classification.model import ClassifierConfig
from internimage.classification.original.names import head_kind
from internimage.classification.preprocess import ClassificationPreprocess
from internimage.classification.published import published_size


def infer_classifier(shapes: Shapes, source: str) -> ClassifierConfig:
    """Return the classifier behind an original checkpoint, with the preprocessing published for its size.

    Raises:
        ValueError: the entries are no InternImage classifier, or no published size agrees with them.
    """
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
