"""Segmentation, as the rest of the house sees it."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from internimage.checkpoints.catalog import info
from internimage.data.label_maps.open import open_segmentation_dataset
from internimage.flow import EvaluationOptions, Task
from internimage.segmentation.creation import SEGMENTORS
from internimage.segmentation.model import Segmentor, SegmentorConfig
from internimage.segmentation.published import segmentor_of_row

if TYPE_CHECKING:
    from internimage.segmentation.report import SegmentationReport


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


def evaluate(model: Segmentor, data: str | PathLike[str], options: EvaluationOptions) -> SegmentationReport:
    """Measure a segmentor, see `internimage.segmentation.evaluate.evaluate_segmentation`."""
    from internimage.segmentation.evaluate import evaluate_segmentation
    from internimage.segmentation.report import published_metrics
    from internimage.segmentation.tta import SegmentationTTA, published_scales

    entry = None if options.published is None else info(options.published)
    several = SegmentationTTA() if entry is None else published_scales(entry)
    return evaluate_segmentation(
        model,
        data,
        split=options.split,
        tta=several if options.multi_scale else None,
        batch_size=options.batch_size or 1,
        workers=options.workers,
        published=None if entry is None else published_metrics(entry, tta=options.multi_scale),
        folder=options.folder,
        progress=options.progress,
    )


TASK = Task(
    name="segmentation",
    noun="segmentor",
    configs=(SegmentorConfig,),
    architectures=tuple(SEGMENTORS),
    build=Segmentor,
    published=published_config,
    usual_hw=usual_hw,
    open_data=open_segmentation_dataset,
    evaluate=evaluate,
    options=frozenset({"multi_scale", "folder"}),
)
