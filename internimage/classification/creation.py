"""From what the caller of `create` asks for to the classifier that is built."""

from __future__ import annotations

import dataclasses

from internimage.backbones import BackboneConfig
from internimage.backbones.choice import Wanted
from internimage.backbones.config import ATTENTION_POOLED
from internimage.classification.head import head_named
from internimage.classification.model import ClassifierConfig
from internimage.classification.preprocess import ClassificationPreprocess
from internimage.flow import on_weights


def create_config(
    wanted: Wanted, *, head: object, preprocess: object, on: ClassifierConfig | None, backbone: BackboneConfig | None
) -> ClassifierConfig:
    """Return the classifier that a caller wants, fresh or on the weights of another, see `internimage.flow.Create`.

    Raises:
        TypeError: head or preprocessing are those of another task.
        ValueError: the backbone is not given, no such head, or the weights are of another backbone or no classifier.
    """
    if not isinstance(head, str | None) or not isinstance(preprocess, ClassificationPreprocess | None):
        raise TypeError("a classifier takes the kind of its head and a classification ClassificationPreprocess")
    kind = None if head is None else head_named(head)
    if on is not None:
        return dataclasses.replace(on_weights(on, wanted, preprocess), head=kind or on.head)
    if backbone is not None:
        raise ValueError(
            "expected the weights of a classifier, given those of another model or a bare backbone; their backbone: "
            "create('internimage_t', weights=...)"
        )
    if wanted.backbone is None:
        raise ValueError("a classifier needs a backbone: create('classifier', backbone='internimage_t', ...)")
    return ClassifierConfig(
        backbone=wanted.merged(None),
        num_classes=1000 if wanted.classes is None else wanted.classes,
        head=kind or ("attention_pool" if wanted.backbone in ATTENTION_POOLED else "conv"),
        preprocess=preprocess or ClassificationPreprocess(),
        class_names=wanted.class_names,
    )
