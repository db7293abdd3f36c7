"""Start weights: the backbone of any model, or a whole model of the same kind; compared before they are taken over."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from internimage.backbones import CompositeInternImage, InternImage
from internimage.backbones.names import size_of
from internimage.errors import CheckpointMismatch
from internimage.hub.create import create
from internimage.hub.load import load
from internimage.recipe import ModelSettings
from internimage.recipe.task import AnyTraining

logger = logging.getLogger(__name__)
SHOWN_CLASSES = 8


def log_start(source: str, class_names: Sequence[str]) -> None:
    """Say in one line what a run starts from, and which classes it learns."""
    shown = ", ".join(class_names[:SHOWN_CLASSES]) + (", ..." if len(class_names) > SHOWN_CLASSES else "")
    logger.info("starts from: %s; %d classes: %s", source, len(class_names), shown)


def load_start_weights(model: nn.Module, settings: ModelSettings[Any], task: AnyTraining) -> None:
    """Give a fresh model the start weights of its recipe.

    Args:
        model: the fresh model; what the weights do not hold keeps its random start.
        settings: names or files of the weights, None for a random start.
        task: how the weights of another model become its own.

    Raises:
        ValueError: the classes have no names, differ in number, and no new last layers were asked for, or the weights
            are of another task.
        CheckpointMismatch: the weights are of another architecture; lists every difference.
        UnknownName: no such weights.
    """
    if settings.start_backbone is not None:
        _load_backbone(model.get_submodule("backbone"), settings.start_backbone)
    elif settings.weights is not None:
        source = settings.weights
        given = load(source, in_chans=settings.config.backbone.in_chans)
        state = task.start_state(model, given, source=source, reset_head=settings.reset_head)
        compare_weights(source, state, model.state_dict(), task)
        model.load_state_dict(state)


def _load_backbone(backbone: nn.Module, weights: str) -> None:
    """Take over a backbone; both of a composite start from it."""
    assert isinstance(backbone, InternImage | CompositeInternImage)
    config = backbone.config
    size = size_of(config)
    if size is None:
        raise ValueError(
            "model.backbone_weights starts a backbone of a published size, but model.config.backbone describes another "
            "one; give model.weights of a whole model, or set both to none"
        )
    state = create(size, weights=weights, in_chans=config.in_chans, layer_scale=config.layer_scale).state_dict()
    if isinstance(backbone, InternImage):
        backbone.load_state_dict(state)
        return
    for part in backbone.backbones:
        own = part.state_dict()
        part.load_state_dict({key: value for key, value in state.items() if key in own})


def compare_weights(
    source: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], task: AnyTraining
) -> None:
    """Raise with the full list of differences if weights are not those of a model.

    Args:
        source: what messages call the weights.
        state: the weights by name.
        expected: the weights of the model by name.
        task: says what to do about missing ones.

    Raises:
        CheckpointMismatch: entries are missing, unexpected or of the wrong shape.
    """
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    wrong = [
        (key, tuple(value.shape), tuple(state[key].shape))
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if missing or unexpected or wrong:
        raise CheckpointMismatch(source, missing, unexpected, wrong, task.start_hint(missing))
