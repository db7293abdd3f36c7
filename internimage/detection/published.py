"""From a row of the catalog to the detector that its checkpoint holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from internimage.backbones.config import COMPOSITE_PREFIX
from internimage.checkpoints.catalog import CatalogEntry, model_row
from internimage.detection import DETECTORS, DetectionPreprocess, RCNNConfig
from internimage.detection.config import DenoisingConfig
from internimage.detection.model import DetectorConfig
from internimage.detection.presets import SMALL_DETECTORS

HEADS = {**DETECTORS, **SMALL_DETECTORS, "cb_dino": DETECTORS["dino"]}
# The largest models were trained with more denoising queries on larger images.
LARGE = ("internimage_h", "internimage_g")
SLICED = {"internimage_g": 4}
MAX_PER_IMAGE = {"internimage_t": 100}


def published_config(row: str | CatalogEntry) -> DetectorConfig:
    """Return the detector of a published checkpoint, given by its row in the catalog or the name of it.

    Raises:
        ValueError: the row is no detector, or its backbone is not built by this release.
    """
    entry, backbone, num_classes = model_row(row, "detection")
    config = HEADS[entry.head](backbone, num_classes)
    shared: dict[str, Any] = dict(preprocess=_preprocess(entry), class_names=entry.class_names)
    if isinstance(config, RCNNConfig):
        return replace(config, **shared)
    size = entry.backbone.removeprefix(COMPOSITE_PREFIX)
    return replace(
        config,
        num_backbones=2 if entry.backbone.startswith(COMPOSITE_PREFIX) else 1,
        feedforward_slices=SLICED.get(entry.backbone, 1),
        denoising=DenoisingConfig(num_queries=1000 if size in LARGE else 100),
        max_per_image=MAX_PER_IMAGE.get(entry.backbone, 300),
        **shared,
    )


def _preprocess(entry: CatalogEntry) -> DetectionPreprocess:
    """Return how the row was evaluated."""
    if entry.input_size is None:
        return DetectionPreprocess(shorter_side=1000, longer_side=2000)
    longer, shorter = (int(side) for side in entry.input_size.split("x"))
    return DetectionPreprocess(shorter_side=shorter, longer_side=longer)
