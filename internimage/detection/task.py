"""Detection, as the rest of the house sees it."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from internimage.checkpoints.formats.openmmlab import container
from internimage.detection.config import DINOConfig, RCNNConfig
from internimage.detection.creation import architecture_of, create_config
from internimage.detection.dino.model import DINO
from internimage.detection.evaluate import evaluate_detection
from internimage.detection.graph import DetectorGraph
from internimage.detection.model import Detector, DetectorConfig
from internimage.detection.original import names
from internimage.detection.original.recognition import recognize
from internimage.detection.presets import DETECTORS, build_detector
from internimage.detection.published import published_config
from internimage.detection.rcnn.model import RCNN
from internimage.detection.speed import comparable, num_objects, set_to_work
from internimage.evaluation.object_classes import category_ids
from internimage.flow import GraphOptions, PredictionOptions, Presented, Task
from internimage.types import Detections

NUM_CLASSES_SHOWN = 4


def model_name(config: DetectorConfig) -> str:
    """Return the architecture of a detector; composites and sliced layers of DINO show in it."""
    return config.kind if isinstance(config, DINOConfig) else architecture_of(config)


def usual_hw(config: DetectorConfig) -> tuple[int, int]:
    """Return the largest landscape image that a detector reads, padded."""
    own = config.preprocess
    height, width = (math.ceil(side / own.divisor) * own.divisor for side in (own.shorter_side, own.longer_side))
    return height, width


def present(result: Detections, options: PredictionOptions, image_id: int) -> Presented:
    """Return the objects, with what the options leave out taken out, and how many there are of each class."""
    kept = result.filter(score_threshold=options.score_threshold or 0.0, classes=options.classes)
    row = {"objects": kept.to_dict(masks=options.masks)["objects"]}
    entries: tuple[dict[str, Any], ...] = ()
    if options.coco:
        ids = None if kept.class_names is None else category_ids(kept.class_names)
        entries = tuple(kept.to_coco(image_id, category_ids=ids))
    shown = [entry for entry in row["objects"] if entry["score"] >= options.shown_score]
    counts = Counter(entry["name"] for entry in shown).most_common()
    words = ", ".join(f"{count} {name}" for name, count in counts[:NUM_CLASSES_SHOWN])
    if len(counts) > NUM_CLASSES_SHOWN:
        words += f" and {len(counts) - NUM_CLASSES_SHOWN} more classes"
    best = "".join(f"{entry['name']} {entry['score']:.1%}" for entry in shown[:1])
    num_hidden = len(row["objects"]) - len(shown)
    return Presented(kept, row, words, str(len(shown)), best, num_hidden=num_hidden, entries=entries)


def graph(model: Detector, options: GraphOptions) -> DetectorGraph:
    """Return the graph of a detector."""
    return DetectorGraph(model, options, architecture=model_name(model.config))


TASK: Task[DetectorConfig, RCNN | DINO] = Task(
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
    evaluate=evaluate_detection,
    present=present,
    headings=("objects", "best"),
    prediction_options=frozenset({"score_threshold", "classes", "masks", "coco"}),
    set_to_work=set_to_work,
    comparable=comparable,
    num_objects=num_objects,
    graph=graph,
)
