"""Start weights out of a whole model of the same kind, for other classes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from internimage.checkpoints.class_rows import match_to_weights, take_rows
from internimage.flow import AnyModel, TaskConfig


def with_classes_of(
    model: AnyModel, given: TaskConfig, state: Mapping[str, Tensor], *, source: str, reset_head: bool
) -> dict[str, Tensor]:
    """Return start weights whose last layers answer for the classes of a model.

    Their rows are found by the names of the classes, or start afresh if asked for; layers that answer for all classes
    at once, such as class-agnostic boxes, have nothing to unlearn.

    Args:
        model: the fresh model.
        given: the configuration of the weights.
        state: the weights by name.
        source: what messages call the weights.
        reset_head: whether the last layers start afresh.

    Raises:
        ValueError: the classes have no names and differ in number.
    """
    wanted, expected, layers = model.config, model.state_dict(), model.class_layers
    if reset_head:
        same = wanted.rows == given.rows
        last = {key: value for key, value in expected.items() if layers.match(key)}
        own = {k: v for k, v in last.items() if same or k not in state or state[k].shape != v.shape}
        return {**state, **own}
    match = match_to_weights(wanted.class_names or wanted.num_classes, given.class_names or given.num_classes, source)
    if match is None:
        raise ValueError(
            f"{source} has {given.num_classes} classes but this model needs {wanted.num_classes}; set "
            "model.reset_head=true to start with new last layers"
        )
    counts = dict(classes=wanted.num_classes, given_classes=given.num_classes)
    return take_rows(state, expected, match, **counts, is_class_layer=layers.match)
