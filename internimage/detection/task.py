"""Detection, as the rest of the house sees it."""

from __future__ import annotations

import math

from internimage.checkpoints.catalog import info
from internimage.checkpoints.formats.openmmlab import container
from internimage.data.readers.open_objects import open_detection_dataset
from internimage.detection.config import DINOConfig, RCNNConfig
from internimage.detection.creation import architecture_of, create_config
from internimage.detection.evaluate import evaluate_detection
from internimage.detection.model import Detector, DetectorConfig
from internimage.detection.original import names
from internimage.detection.original.recognition import recognize
from internimage.detection.presets import DETECTORS, build_detector
from internimage.detection.published import detector_of_row
from internimage.flow import Task


def published_config(name: str) -> DetectorConfig:
    """Return the detector of a catalog row by its name."""
    return detector_of_row(info(name))


def model_name(config: DetectorConfig) -> str:
    """Return the architecture of a detector; composites and sliced layers of DINO show in it."""
    return config.kind if isinstance(config, DINOConfig) else architecture_of(config)


def usual_hw(config: DetectorConfig) -> tuple[int, int]:
    """Return the largest landscape image that a detector reads, padded."""
    own = config.preprocess
    height, width = (math.ceil(side / own.divisor) * own.divisor for side in (own.shorter_side, own.longer_side))
    return height, width


TASK: Task[DetectorConfig, Detector] = Task(
    name="detection",
    noun="detector",
    configs=(RCNNConfig, DINOConfig),
    architectures=tuple(DETECTORS),
    build=build_detector,
    create=create_config,
    recognize=recognize,
    published=published_config,
    model_name=model_name,
    key_rules=names.DETECTORS,
    own_kind=names.own_kind,
    to_original=container,
    usual_hw=usual_hw,
    open_data=open_detection_dataset,
    evaluate=evaluate_detection,
)
