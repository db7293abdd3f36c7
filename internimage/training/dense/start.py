"""Start weights of detectors and segmentors: the backbone of any model, or a whole model of the same kind.

Shape legend: K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from internimage.backbones import BackboneConfig, CompositeInternImage, InternImage, variant
from internimage.backbones.config import COMPOSITE_PREFIX, WITHOUT_SCALES
from internimage.checkpoints.class_rows import match_to_weights, take_rows
from internimage.detection import Detector
from internimage.flow import TaskConfig
from internimage.hub.create import create
from internimage.hub.load import load
from internimage.segmentation import Segmentor
from internimage.training.dense.settings import DenseModelSettings
from internimage.training.start import compare_weights

MASK_HEADS = "mask_heads."


def backbone_of(settings: DenseModelSettings) -> BackboneConfig:
    """Return the backbone of a recipe, or each backbone of its composite.

    Raises:
        UnknownName: no such size.
        ValueError: a setting makes no sense for this size.
    """
    size = settings.backbone.removeprefix(COMPOSITE_PREFIX)
    config = replace(variant(size), in_chans=settings.in_chans, drop_path_rate=settings.drop_path_rate)
    if size not in WITHOUT_SCALES:
        config = replace(config, layer_scale=1.0)
    if not settings.through_dcnv4:
        return config
    if config.operator != "dcnv3":
        raise ValueError(f"model.through_dcnv4 is for InternImage, whose operator is dcnv3; {size} has another one")
    return replace(config, operator="dcnv3_through_dcnv4")


def check_classes(settings: DenseModelSettings, class_names: Sequence[str]) -> None:
    """Raise unless the data set has as many classes as the recipe expects.

    Raises:
        ValueError: it has more or fewer.
    """
    if settings.num_classes not in (None, len(class_names)):
        shown = ", ".join(class_names[:5]) + (", ..." if len(class_names) > 5 else "")
        raise ValueError(
            f"model.num_classes is {settings.num_classes}, but the data set has {len(class_names)} classes ({shown}); "
            "leave model.num_classes out to take those of the data set"
        )


def load_start_weights(model: Detector | Segmentor, settings: DenseModelSettings) -> None:
    """Give a fresh model the start weights of its recipe.

    Args:
        model: the fresh model; what the weights do not hold keeps its random start.
        settings: names or files of the weights, None for a random start.

    Raises:
        ValueError: the classes have no names, differ in number, and no new last layers were asked for, or the weights
            are no such model.
        CheckpointMismatch: the weights are of another architecture; lists every difference.
        UnknownName: no such weights.
    """
    if settings.backbone_weights is not None:
        _load_backbone(model, settings)
    elif settings.weights is not None:
        _load_whole(model, settings.weights, reset_head=settings.reset_head)


def _load_backbone(model: Detector | Segmentor, settings: DenseModelSettings) -> None:
    """Take over a backbone; both of a composite start from it."""
    backbone = model.backbone
    assert isinstance(backbone, InternImage | CompositeInternImage)
    size = settings.backbone.removeprefix(COMPOSITE_PREFIX)
    source = create(
        size,
        weights=settings.backbone_weights,
        in_chans=settings.in_chans,
        layer_scale=backbone.config.layer_scale,
    )
    state = source.state_dict()
    if isinstance(backbone, InternImage):
        backbone.load_state_dict(state)
        return
    for part in backbone.backbones:
        own = part.state_dict()
        part.load_state_dict({key: value for key, value in state.items() if key in own})


def _load_whole(model: Detector | Segmentor, source: str, *, reset_head: bool) -> None:
    """Take over a model, the last layers by the names of the classes, or without those layers if asked for."""
    given = load(source, in_chans=model.config.backbone.in_chans)
    if not isinstance(given, Detector | Segmentor) or given.task != model.task:
        raise ValueError(
            f"{source} is no model for {model.task}; set model.weights=none model.backbone_weights={source} to start "
            "from its backbone"
        )
    expected, state = model.state_dict(), given.state_dict()
    if not any(key.startswith(MASK_HEADS) for key in expected):  # a detector of boxes takes all but the mask heads
        state = {key: value for key, value in state.items() if not key.startswith(MASK_HEADS)}
    rows, given_rows = model.config.rows, given.config.rows
    if not reset_head:
        state = _with_classes(state, expected, model, given.config, source)
    else:
        # Layers that answer for all classes at once, such as class-agnostic boxes, have nothing to unlearn.
        fresh = {
            key: value
            for key, value in expected.items()
            if model.class_layers.match(key)
            and (rows == given_rows or key not in state or state[key].shape != value.shape)
        }
        state = {**state, **fresh}
    compare_weights(source, state, expected, hint=_hint)
    model.load_state_dict(state)


def _with_classes(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    model: Detector | Segmentor,
    given: TaskConfig,
    source: str,
) -> dict[str, Tensor]:
    """Return start weights whose last layers have the rows of the model's classes."""
    config = model.config
    match = match_to_weights(config.class_names or config.num_classes, given.class_names or given.num_classes, source)
    if match is None:
        raise ValueError(
            f"{source} has {given.num_classes} classes but this model needs {config.num_classes}; set "
            "model.reset_head=true to start with new last layers"
        )
    return take_rows(
        state,
        expected,
        match,
        classes=config.num_classes,
        given_classes=given.num_classes,
        is_class_layer=model.class_layers.match,
    )


def _hint(_: Sequence[str]) -> str:
    return "model.architecture, model.backbone and model.weights of the recipe must belong together."
