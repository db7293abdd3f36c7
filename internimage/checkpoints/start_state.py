"""Start weights out of a whole model of the same kind, for other classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from internimage.checkpoints.class_rows import match_to_weights, take_rows


class Classes(Protocol):
    """The classes of a model."""

    @property
    def num_classes(self) -> int:
        """How many."""
        ...

    @property
    def class_names(self) -> Sequence[str] | None:
        """Their names."""
        ...


def with_own_classes(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    wanted: Classes,
    given: Classes,
    layers: re.Pattern[str],
    source: str,
) -> dict[str, Tensor]:
    """Return start weights whose last layers have the rows of a model's classes, found by their names.

    Args:
        state: the weights by name.
        expected: those of the fresh model.
        wanted: its classes.
        given: the classes of the weights.
        layers: names of the layers with rows for classes.
        source: what messages call the weights.

    Raises:
        ValueError: the classes have no names and differ in number.
    """
    match = match_to_weights(wanted.class_names or wanted.num_classes, given.class_names or given.num_classes, source)
    if match is None:
        raise ValueError(
            f"{source} has {given.num_classes} classes but this model needs {wanted.num_classes}; set "
            "model.reset_head=true to start with new last layers"
        )
    return take_rows(
        state,
        expected,
        match,
        classes=wanted.num_classes,
        given_classes=given.num_classes,
        is_class_layer=layers.match,
    )


def with_fresh_classes(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, layers: re.Pattern[str], same_rows: bool
) -> dict[str, Tensor]:
    """Return start weights whose last layers start afresh.

    Layers that answer for all classes at once, such as class-agnostic boxes, have nothing to unlearn.

    Args:
        state: the weights by name.
        expected: those of the fresh model.
        layers: names of the layers with rows for classes.
        same_rows: whether the last layers have as many rows in both.
    """
    fresh = {
        key: value
        for key, value in expected.items()
        if layers.match(key) and (same_rows or key not in state or state[key].shape != value.shape)
    }
    return {**state, **fresh}
