"""What a measurement of speed must know of detectors: what two backends agree on, and what work random weights have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from internimage.detection.dino.model import DINO
from internimage.detection.model import Detector, full_size
from internimage.detection.postprocess import RawDetections
from internimage.detection.rcnn.model import RCNN

# Standard deviation of the logits of a region among the classes, with random weights.
LOGIT_SPREAD = 3.0
PROBE_HW = (128, 128)


def comparable(model: Detector, outputs: RawDetections, pixels: Tensor) -> list[Tensor]:
    """Return what two backends must agree on.

    Objects are a choice of the best, which the smallest difference turns round; the maps, the memory of a DINO and its
    sorted scores are compared instead.
    """
    maps: list[Tensor] = cast("nn.Module", model.neck)(model.backbone(pixels).maps)
    if not isinstance(model, DINO):
        return list(maps)
    memory = model.encode(maps, full_size(pixels, None), pixels)
    return [*maps, memory.cells, outputs.scores.sort().values]


def num_objects(outputs: RawDetections) -> int:
    """Return the number of objects that a detector works on to the end."""
    return len(outputs.scores)


def set_to_work(model: Detector) -> None:
    """Let the classes of a region differ in an R-CNN with random weights.

    They would hardly, so that it would find nothing, or the most that it can, by the number of its classes alone.
    """
    if isinstance(model, RCNN):
        pixels = torch.randn(1, model.config.backbone.in_chans, *PROBE_HW)
        classifiers = [cast("nn.Linear", head.classifier) for head in model.box_heads]
        spread_scores(classifiers, lambda: model(pixels))


def spread_scores(classifiers: Sequence[nn.Linear], run: Callable[[], object]) -> None:
    """Scale classifiers, in the order in which they run, so that the logits of a region differ by `LOGIT_SPREAD`."""
    for classifier in classifiers:
        seen: list[Tensor] = []
        hook = classifier.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output))
        with torch.inference_mode():
            run()
        hook.remove()
        logits = torch.cat(seen)
        scale = LOGIT_SPREAD / float((logits - logits.mean(dim=0)).std())
        with torch.no_grad():
            classifier.weight.mul_(scale)
            classifier.bias.copy_((classifier.bias - logits.mean(dim=0)) * scale)
