"""Start weights: what a run says about them, and that they are compared before they are taken over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from internimage.errors import CheckpointMismatch

logger = logging.getLogger(__name__)
SHOWN_CLASSES = 8


def log_start(settings: Any, class_names: Sequence[str]) -> None:
    """Say in one line what a run starts from, and which classes it learns.

    Args:
        settings: the section `model` of a recipe.
        class_names: classes of the data.
    """
    if settings.weights is not None:
        source = f"{settings.weights} (whole model{', with new last layers' if settings.reset_head else ''})"
    elif getattr(settings, "backbone_weights", None) is not None:
        source = f"{settings.backbone_weights} (backbone only; the head is random)"
    else:
        source = "random weights"
    shown = ", ".join(class_names[:SHOWN_CLASSES]) + (", ..." if len(class_names) > SHOWN_CLASSES else "")
    logger.info("starts from: %s; %d classes: %s", source, len(class_names), shown)


def compare_weights(
    source: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, hint: Callable[[Sequence[str]], str]
) -> None:
    """Raise with the full list of differences if weights are not those of a model.

    Args:
        source: what messages call the weights.
        state: the weights by name.
        expected: the weights of the model by name.
        hint: maps the names that are missing to what should be done.

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
        raise CheckpointMismatch(source, missing, unexpected, wrong, hint(missing))
