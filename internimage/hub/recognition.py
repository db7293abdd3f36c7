"""What a checkpoint holds: the first of several descriptions that is there.

For the architecture: the document of a file of ours, the caller's settings, `config.json` of a folder, the catalog row,
a configuration stored by the original training, and at last names and shapes. Preprocessing and class names come from
the file, the catalog row, or what is published for the size and the number of classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from internimage.backbones import BackboneConfig
from internimage.checkpoints.catalog import CatalogEntry
from internimage.checkpoints.checkpoint import Checkpoint
from internimage.checkpoints.rename import head_kind
from internimage.classification import ClassifierConfig
from internimage.classification.original.settings import backbone_from_settings, classifier_from_settings
from internimage.classification.original.shapes import LABELS, infer_backbone, infer_classifier
from internimage.data.labels import label_set
from internimage.detection import DINOConfig, RCNNConfig
from internimage.detection.original.settings import detector_from_settings
from internimage.detection.published import detector_of_row
from internimage.segmentation import SegmentorConfig
from internimage.segmentation.original.settings import segmentor_from_settings
from internimage.segmentation.published import segmentor_of_row


def classifier_config(
    checkpoint: Checkpoint, entry: CatalogEntry | None = None, settings: Mapping[str, Any] | None = None
) -> ClassifierConfig:
    """Return the classifier that a checkpoint holds.

    Args:
        checkpoint: an open checkpoint.
        entry: the catalog row whose name the file has, or None.
        settings: original-style settings given by the caller, or None.

    Raises:
        ValueError: nothing describes it, or it is no classifier.
    """
    if checkpoint.document is not None:
        if not isinstance(checkpoint.document.config, ClassifierConfig):
            is_bare = checkpoint.document.task == "backbone"
            kind = "bare backbone" if is_bare else f"{checkpoint.document.task} model"
            raise ValueError(f"{checkpoint.source} holds a {kind}, expected a classifier")
        return checkpoint.document.config
    if checkpoint.is_part:
        raise ValueError(
            f"{checkpoint.source} holds a detector or a segmentor, expected a classifier; take its backbone with "
            "create('internimage_t', weights=...)"
        )
    row = entry if entry is not None and _agrees(entry, checkpoint) else None
    stated = settings or (checkpoint.settings if checkpoint.is_folder or row is None else None)
    if stated is not None:
        config = classifier_from_settings(stated)
    elif row is not None and row.backbone_config is not None:
        head = head_kind(checkpoint.shapes) or "conv"
        config = ClassifierConfig(row.backbone_config, num_classes=row.num_classes or 0, head=head)
    else:
        config = infer_classifier(checkpoint.shapes, checkpoint.source)
    preprocess = checkpoint.preprocess or (row.preprocess if row is not None else config.preprocess)
    names = checkpoint.class_names or (row.class_names if row is not None else published_names(config.num_classes))
    return dataclasses.replace(config, preprocess=preprocess, class_names=names)


def is_segmentor(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint holds a whole segmentor."""
    if checkpoint.document is not None:
        return isinstance(checkpoint.document.config, SegmentorConfig)
    return checkpoint.is_part and any(key.startswith("decode_head.") for key in checkpoint.shapes)


def segmentor_config(
    checkpoint: Checkpoint, entry: CatalogEntry | None = None, settings: Mapping[str, Any] | None = None
) -> SegmentorConfig:
    """Return the segmentor that a checkpoint holds.

    Args:
        checkpoint: an open checkpoint.
        entry: the catalog row whose name the file has, or None.
        settings: original-style settings given by the caller, or None.

    Raises:
        ValueError: nothing describes it, or it is no segmentor.
    """
    if not is_segmentor(checkpoint):
        raise ValueError(f"{checkpoint.source} holds no segmentor")
    if checkpoint.document is not None:
        assert isinstance(checkpoint.document.config, SegmentorConfig)
        return checkpoint.document.config
    names, palette = checkpoint.class_names, checkpoint.palette
    if palette is not None and (names is None or len(names) != len(palette)):
        palette = None
    if settings is not None:
        return segmentor_from_settings(settings, class_names=names, palette=palette)
    row = None if entry is None or not entry.is_built or entry.task != "segmentation" else segmentor_of_row(entry)
    if row is not None and _outputs(checkpoint) == row.rows:
        return row
    if checkpoint.model_settings is None:
        raise ValueError(
            f"{checkpoint.source} is a segmentor that does not state its settings; give them as the original writes "
            "them: load(..., settings={'backbone': ..., 'decode_head': ...})"
        )
    return segmentor_from_settings(checkpoint.model_settings, class_names=names, palette=palette)


def is_detector(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint holds a whole detector."""
    if checkpoint.document is not None:
        return isinstance(checkpoint.document.config, RCNNConfig | DINOConfig)
    return checkpoint.is_part and any(key.startswith(("rpn_head.", "bbox_head.")) for key in checkpoint.shapes)


def detector_config(
    checkpoint: Checkpoint, entry: CatalogEntry | None = None, settings: Mapping[str, Any] | None = None
) -> RCNNConfig | DINOConfig:
    """Return the detector that a checkpoint holds.

    Args:
        checkpoint: an open checkpoint.
        entry: the catalog row whose name the file has, or None.
        settings: original-style settings given by the caller, or None.

    Raises:
        ValueError: nothing describes it, or it is no detector.
    """
    if not is_detector(checkpoint):
        raise ValueError(f"{checkpoint.source} holds no detector")
    if checkpoint.document is not None:
        assert isinstance(checkpoint.document.config, RCNNConfig | DINOConfig)
        return checkpoint.document.config
    stated = settings or checkpoint.model_settings
    is_row = settings is None and entry is not None and entry.is_built and entry.task == "detection"
    if is_row and entry is not None and (stated is None or entry.num_classes == _detected_classes(checkpoint)):
        return detector_of_row(entry)
    if stated is None:
        raise ValueError(
            f"{checkpoint.source} is a detector that does not state its settings; give them as the original writes "
            "them: load(..., settings={'backbone': ..., 'neck': ...})"
        )
    config = detector_from_settings(stated)
    names = checkpoint.class_names
    fits = names is not None and len(names) == config.num_classes
    return dataclasses.replace(config, class_names=names if fits else None)


def backbone_config(checkpoint: Checkpoint, entry: CatalogEntry | None = None) -> BackboneConfig:
    """Return the backbone that a checkpoint holds, alone or as a part of a model.

    Raises:
        ValueError: nothing describes it.
    """
    if checkpoint.document is not None:
        config = checkpoint.document.config
        return config if isinstance(config, BackboneConfig) else config.backbone
    if entry is not None and entry.backbone_config is not None and not checkpoint.is_folder:
        return entry.backbone_config
    if checkpoint.settings is not None:
        return backbone_from_settings(checkpoint.settings)
    if checkpoint.model_settings is not None:
        return backbone_from_settings(checkpoint.model_settings["model"].get("backbone") or {})
    return infer_backbone(checkpoint.backbone().shapes, checkpoint.source)[1]


def published_names(num_classes: int) -> tuple[str, ...] | None:
    """Return the ImageNet names for their numbers of classes, None for others."""
    return label_set(LABELS[num_classes]).class_names if num_classes in LABELS else None


def _outputs(checkpoint: Checkpoint) -> int | None:
    """Return the number of classes in the last layer of a segmentor, without the "nothing" of Mask2Former."""
    shapes = checkpoint.shapes
    if "decode_head.cls_embed.weight" in shapes:
        return shapes["decode_head.cls_embed.weight"][0] - 1
    return shapes.get("decode_head.conv_seg.weight", (None,))[0]


def _detected_classes(checkpoint: Checkpoint) -> int | None:
    """Return the classes of an original detector, from the rows of its classifier."""
    rows = {key: shape[0] for key, shape in checkpoint.shapes.items() if key.endswith("weight")}
    for name in ("roi_head.bbox_head.fc_cls.weight", "roi_head.bbox_head.0.fc_cls.weight"):
        if name in rows:
            return rows[name] - 1  # one row is the background's
    return rows.get("bbox_head.cls_branches.0.weight")


def _agrees(entry: CatalogEntry, checkpoint: Checkpoint) -> bool:
    """Whether a file that is named like a catalog row has its classes; a fine-tuned file may have others."""
    return entry.is_built and checkpoint.shapes.get("head.weight", (None,))[0] == entry.num_classes
