"""Segmentation, as the rest of the house sees it."""

from __future__ import annotations

from internimage.checkpoints.catalog import info
from internimage.data.label_maps.open import open_segmentation_dataset
from internimage.flow import Task
from internimage.segmentation.creation import SEGMENTORS
from internimage.segmentation.evaluate import evaluate_segmentation
from internimage.segmentation.model import Segmentor, SegmentorConfig
from internimage.segmentation.published import segmentor_of_row


def published_config(name: str) -> SegmentorConfig:
    """Return the segmentor of a catalog row by its name."""
    return segmentor_of_row(info(name))


def usual_hw(config: SegmentorConfig) -> tuple[int, int]:
    """Return the window that a segmentor cuts, or a square of the shorter side that it resizes to."""
    own = config.preprocess
    if own.window is not None:
        return own.window.size_hw
    side = 512 if own.scale is None else min(own.scale)
    return side, side


TASK = Task(
    name="segmentation",
    noun="segmentor",
    configs=(SegmentorConfig,),
    architectures=tuple(SEGMENTORS),
    build=Segmentor,
    published=published_config,
    usual_hw=usual_hw,
    open_data=open_segmentation_dataset,
    evaluate=evaluate_segmentation,
)
