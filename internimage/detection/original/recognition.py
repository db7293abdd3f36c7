"""The detector that a checkpoint holds: the first of several descriptions that is there.

It is the configuration in a file of ours, the caller's settings, the catalog row, or a configuration stored by the
original training.
"""

from __future__ import annotations

import dataclasses

from internimage.checkpoints.catalog import info
from internimage.detection.config import DINOConfig, RCNNConfig
from internimage.detection.model import DetectorConfig
from internimage.detection.original.settings import detector_from_settings
from internimage.detection.published import published_config
from internimage.flow import Checkpoint, Settings


def recognize(checkpoint: Checkpoint, row: str | None, settings: Settings | None) -> DetectorConfig | None:
    """Return the detector that a checkpoint holds, None for other models, see `internimage.flow.Recognize`.

    Raises:
        ValueError: nothing describes it.
    """
    if checkpoint.config is not None:
        return checkpoint.config if isinstance(checkpoint.config, RCNNConfig | DINOConfig) else None
    if not (checkpoint.is_part and any(key.startswith(("rpn_head.", "bbox_head.")) for key in checkpoint.shapes)):
        return None
    given = settings or checkpoint.stated.settings
    entry = None if row is None else info(row)
    is_row = settings is None and entry is not None and entry.is_built and entry.task == "detection"
    if is_row and entry is not None and (given is None or entry.num_classes == _num_classes(checkpoint)):
        return published_config(entry)
    if given is None:
        raise ValueError(
            f"{checkpoint.source} is a detector that does not state its settings; give them as the original writes "
            "them: load(..., settings={'backbone': ..., 'neck': ...})"
        )
    config = detector_from_settings(given)
    names = checkpoint.stated.class_names
    fits = names is not None and len(names) == config.num_classes
    return dataclasses.replace(config, class_names=names if fits else None)


def _num_classes(checkpoint: Checkpoint) -> int | None:
    """Return the classes of an original detector, from the rows of its classifier."""
    rows = {key: shape[0] for key, shape in checkpoint.shapes.items() if key.endswith("weight")}
    for name in ("roi_head.bbox_head.fc_cls.weight", "roi_head.bbox_head.0.fc_cls.weight"):
        if name in rows:
            return rows[name] - 1  # one row is the background's
    return rows.get("bbox_head.cls_branches.0.weight")
