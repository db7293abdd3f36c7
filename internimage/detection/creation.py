"""From what the caller of `create` asks for to the detector that is built."""

from __future__ import annotations

import dataclasses

from internimage.backbones import BackboneConfig
from internimage.backbones.choice import Wanted
from internimage.detection.config import DINOConfig
from internimage.detection.model import DetectorConfig
from internimage.detection.preprocess import DetectionPreprocess
from internimage.detection.presets import DETECTORS
from internimage.flow import on_weights


def create_config(
    wanted: Wanted, *, head: object, preprocess: object, on: DetectorConfig | None, backbone: BackboneConfig | None
) -> DetectorConfig:
    """Return the detector that a caller wants, fresh or on the weights of another, see `internimage.flow.Create`.

    Raises:
        TypeError: the preprocessing is that of another task.
        ValueError: what is needed is not given, a head is, or the weights are of another detector or backbone.
    """
    if head is not None:
        raise ValueError(f"a {wanted.architecture} takes no head; other settings: internimage.detection.RCNNConfig")
    if not isinstance(preprocess, DetectionPreprocess | None):
        raise TypeError(f"preprocess must be an internimage.detection.DetectionPreprocess, given {preprocess!r}")
    if wanted.is_composite and wanted.architecture != "dino":
        raise ValueError(f"a composite backbone goes with 'dino', given {wanted.architecture!r}")
    if on is not None:
        is_other = wanted.backbone is not None and wanted.is_composite != on.kind.startswith("cb_")
        if is_other or architecture_of(on) != wanted.architecture:
            raise ValueError(
                f"the weights are those of another detector than {wanted.architecture!r} with the backbone "
                f"{wanted.backbone!r}; to take only their backbone, load it with create(size, weights=...) and save it"
            )
        return on_weights(on, wanted, preprocess)
    if wanted.backbone is None or wanted.classes is None:
        raise ValueError(
            f"a detector needs a backbone and its classes: create({wanted.architecture!r}, "
            "backbone='internimage_t', num_classes=...)"
        )
    config = DETECTORS[wanted.architecture](wanted.with_scales().merged(backbone), wanted.classes)
    if isinstance(config, DINOConfig):
        config = dataclasses.replace(config, num_backbones=2 if wanted.is_composite else 1)
    return dataclasses.replace(config, preprocess=preprocess or DetectionPreprocess(), class_names=wanted.class_names)


def architecture_of(config: DetectorConfig) -> str:
    """Return what `create` calls a detector of this configuration."""
    if isinstance(config, DINOConfig):
        return "dino"
    if len(config.stages) > 1:
        return "cascade_rcnn" if config.mask is None else "cascade_mask_rcnn"
    return "faster_rcnn" if config.mask is None else "mask_rcnn"
