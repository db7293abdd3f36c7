"""Start weights: what a run takes over from a published or an own model, and what begins afresh.

Shape legend: K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from internimage.checkpoints.class_rows import match_to_weights, take_rows
from internimage.classification.model import Classifier, ClassifierConfig
from internimage.hub.load import load
from internimage.training.classification.config import ModelSettings
from internimage.training.start import compare_weights

# A new last layer starts near zero, so that the first steps do not tear up the weights below it (as published).
NEW_LAYER_SCALE = 1e-3
LAST_LAYERS = ("head.classifier.", "head.image.classifier.")  # of all models; of the images in models with metadata


def load_start_weights(model: Classifier, settings: ModelSettings) -> None:
    """Give a fresh classifier the start weights of its recipe.

    The last layer takes over the rows of the classes of the same names, and starts afresh for the others. Where one
    side has no names, the numbers of classes must agree (or be the 21,841 and 1,000 of ImageNet), or `reset_head` must
    ask for a new last layer.

    Args:
        model: the fresh classifier.
        settings: name or file of the weights, None for a random start.

    Raises:
        ValueError: the classes have no names, differ in number, and no new last layer was asked for.
        CheckpointMismatch: the weights are of another architecture; lists every difference.
        UnknownName: no such weights.
    """
    if settings.weights is None:
        return
    source = load(settings.weights, in_chans=model.config.backbone.in_chans)
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
    elif isinstance(source, Classifier):
        starts_afresh = model.takes_metadata and not source.takes_metadata  # the branch of the metadata
        layers = LAST_LAYERS[1:] if starts_afresh else LAST_LAYERS
        state = _with_classes(state, expected, model.config, source.config, settings.weights, layers)
    compare_weights(settings.weights, state, expected, hint=_hint)
    model.load_state_dict(state)


def _below_image(key: str) -> str:
    return key.replace("head.", "head.image.", 1) if key.startswith("head.") else key


def _reads_metadata(key: str) -> bool:
    return key.startswith("head.") and not key.startswith("head.image.")


def _with_classes(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    config: ClassifierConfig,
    given: ClassifierConfig,
    source: str,
    layers: tuple[str, ...],
) -> dict[str, Tensor]:
    """Return the start weights with the rows of the last layer that belong to the classes of the model."""
    match = match_to_weights(config.class_names or config.num_classes, given.class_names or given.num_classes, source)
    if match is None:
        raise ValueError(
            f"{source} has {given.num_classes} classes but the data set has {config.num_classes}; "
            "set model.reset_head=true to start with a new last layer"
        )
    fresh = {key: value * NEW_LAYER_SCALE for key, value in expected.items() if key.startswith(layers)}
    return take_rows(
        state,
        fresh,
        match,
        classes=config.num_classes,
        given_classes=given.num_classes,
        is_class_layer=lambda key: key.startswith(layers),
    )


def _hint(missing: Sequence[str]) -> str:
    if missing and all(key.startswith("head.") for key in missing):
        return "The weights are a bare backbone: set model.reset_head=true to start with a new head."
    return "model.backbone, model.head and model.weights of the recipe must belong together."
