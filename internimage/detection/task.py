"""Detection, as the rest of the house sees it."""

from __future__ import annotations

import math
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from internimage.checkpoints.catalog import info
from internimage.data.readers.open_objects import open_detection_dataset
from internimage.detection.config import DINOConfig, RCNNConfig
from internimage.detection.model import Detector, DetectorConfig
from internimage.detection.presets import DETECTORS, build_detector
from internimage.detection.published import detector_of_row
from internimage.flow import EvaluationOptions, Task

if TYPE_CHECKING:
    from internimage.detection.report import DetectionReport


def published_config(name: str) -> DetectorConfig:
    """Return the detector of a catalog row by its name."""
    return detector_of_row(info(name))


def usual_hw(config: DetectorConfig) -> tuple[int, int]:
    """Return the largest landscape image that a detector reads, padded."""
    own = config.preprocess
    height, width = (math.ceil(side / own.divisor) * own.divisor for side in (own.shorter_side, own.longer_side))
    return height, width


def evaluate(model: Detector, data: str | PathLike[str], options: EvaluationOptions) -> DetectionReport:
    """Measure a detector, see `internimage.detection.evaluate.evaluate_detection`."""
    from internimage.detection.evaluate import evaluate_detection
    from internimage.detection.report import published_metrics
    from internimage.detection.tta import usual_scales

    metric: Any = options.metric or "coco"
    tta = usual_scales(model) if options.multi_scale else None
    if tta is not None and options.merge is not None:
        tta = replace(tta, method=options.merge)
    published = {}
    if options.published is not None:
        is_minival = "minival" in str(data).rsplit("/", 1)[-1]
        entry = info(options.published)
        published = published_metrics(entry, metric, tta=options.multi_scale, lvis_minival=is_minival)
    return evaluate_detection(
        model,
        data,
        split=options.split,
        images=options.images,
        metric=metric,
        batch_size=options.batch_size or 1,
        workers=options.workers,
        tta=tta,
        folder=options.folder,
        published=published,
        progress=options.progress,
    )


TASK: Task[DetectorConfig, Detector] = Task(
    name="detection",
    noun="detector",
    configs=(RCNNConfig, DINOConfig),
    architectures=tuple(DETECTORS),
    build=build_detector,
    published=published_config,
    usual_hw=usual_hw,
    open_data=open_detection_dataset,
    evaluate=evaluate,
    options=frozenset({"metric", "images", "multi_scale", "merge", "folder"}),
)
