"""Segmentation, as the rest of the house sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from internimage.checkpoints.formats.openmmlab import container
from internimage.flow import PredictionOptions, Presented, Task
from internimage.segmentation.config import SegmentorConfig
from internimage.segmentation.creation import SEGMENTORS, create_config
from internimage.segmentation.evaluate import evaluate_segmentation
from internimage.segmentation.graph import SegmentorGraph
from internimage.segmentation.model import Segmentor
from internimage.segmentation.original import names
from internimage.segmentation.original.recognition import recognize
from internimage.segmentation.published import published_config
from internimage.types import Segmentation

NUM_NEXT = 2


def usual_hw(config: SegmentorConfig) -> tuple[int, int]:
    """Return the window that a segmentor cuts, or a square of the shorter side that it resizes to."""
    own = config.preprocess
    if own.window is not None:
        return own.window.size_hw
    side = 512 if own.scale is None else min(own.scale)
    return side, side


def to_original(config: SegmentorConfig, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the content of a file in the original's form."""
    return container(config, state, palette=config.palette)


def present(result: Segmentation, options: PredictionOptions, image_id: int) -> Presented:
    """Return the largest classes, and the label map."""
    (name, area), *others = result.areas()[: min(options.top_k, 1 + NUM_NEXT)]
    more = ", ".join(f"{other} {fraction:.1%}" for other, fraction in others)
    row = result.to_dict(options.top_k)
    return Presented(result, row, name, f"{area:.1%}", more, label_map=result.to_image)


TASK = Task(
    name="segmentation",
    noun="segmentor",
    configs=(SegmentorConfig,),
    architectures=tuple(SEGMENTORS),
    build=Segmentor,
    create=create_config,
    recognize=recognize,
    published=published_config,
    model_name=lambda config: config.kind,
    key_rules=names.SEGMENTORS,
    own_kind=names.own_kind,
    to_original=to_original,
    usual_hw=usual_hw,
    evaluate=evaluate_segmentation,
    present=present,
    headings=("area", "next"),
    graph=SegmentorGraph,
)
