"""Start weights: what a run takes over from a published or an own model, and what begins afresh.

Shape legend: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from internimage.classification.model import Classifier
from internimage.data.labels import rows_22k_to_1k
from internimage.training.classification.config import ModelSettings
from internimage.training.start import compare_weights
from internimage.zoo.factory import load

# A new last layer starts near zero, so that the first steps do not tear up the weights below it (as published).
NEW_LAYER_SCALE = 1e-3
LAST_LAYERS = ("head.classifier.", "head.image.classifier.")  # of all models; of the pictures in models with metadata


def load_start_weights(model: Classifier, settings: ModelSettings) -> None:
    """Give a fresh classifier the start weights of its recipe.

    The last layer is taken over where the number of classes agrees; from the 21,841 classes of ImageNet-22k to the
    1,000 of ImageNet-1k the rows of the same classes are; in every other case `reset_head` must ask for a new one.

    Args:
        model: the fresh classifier.
        settings: name or file of the weights, None for a random start.

    Raises:
        ValueError: the classes differ and no new last layer was asked for.
        CheckpointMismatch: the weights are of another architecture; lists every difference.
        UnknownName: no such weights.
    """
    if settings.weights is None:
        return
    source = load(settings.weights)
    expected = model.state_dict()
    state = source.state_dict()
    if not isinstance(source, Classifier):
        state = {f"backbone.{key}": value for key, value in state.items()}
    elif model.takes_metadata and not source.takes_metadata:
        state = {_below_image(key): value for key, value in state.items()}
        # The source has nothing to give to the branch that reads metadata, which starts afresh.
        state |= {key: value for key, value in expected.items() if _reads_metadata(key)}
    if settings.reset_head:
        last = LAST_LAYERS[1] if model.takes_metadata else LAST_LAYERS[0]
        state = {key: value for key, value in expected.items() if key.startswith("head.")} | state
        for key, value in expected.items():
            if key.startswith(LAST_LAYERS):
                state[key] = value * NEW_LAYER_SCALE if key.startswith(last) else value
    else:
        for key in state.keys() & expected.keys():
            state[key] = _fitting_rows(key, state[key], expected[key], settings.weights)
    compare_weights(settings.weights, state, expected, hint=_hint)
    model.load_state_dict(state)


def _below_image(key: str) -> str:
    return key.replace("head.", "head.image.", 1) if key.startswith("head.") else key


def _reads_metadata(key: str) -> bool:
    return key.startswith("head.") and not key.startswith("head.image.")


def _fitting_rows(key: str, given: Tensor, expected: Tensor, source: str) -> Tensor:
    """Return the rows of a last layer that belong to the classes of the model; other tensors as they are."""
    if not key.startswith(LAST_LAYERS) or len(given) == len(expected):
        return given
    if (len(given), len(expected)) == (21841, 1000):
        return given[torch.tensor(rows_22k_to_1k())]
    raise ValueError(
        f"{source} has {len(given)} classes but the data set has {len(expected)}; "
        "set model.reset_head=true to start with a new last layer"
    )


def _hint(missing: Sequence[str]) -> str:
    if missing and all(key.startswith("head.") for key in missing):
        return "The weights are a bare backbone: set model.reset_head=true to start with a new head."
    return "model.backbone, model.head and model.weights of the recipe must belong together."
