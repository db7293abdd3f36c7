"""Last layers on given weights: each class takes over the rows of the class of its name.

Shape legend: K classes of the new model, S classes of the start weights.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from torch import Tensor

from internimage.data.class_names import NONE, ClassMatch, match_classes, some_names
from internimage.flow import AnyModel, TaskConfig

logger = logging.getLogger(__name__)

BOX_SIDES, REGRESSION = 4, ".regressor."


def with_classes_of(
    model: AnyModel, given: TaskConfig, state: Mapping[str, Tensor], *, source: str, reset_head: bool
) -> dict[str, Tensor]:
    """Return start weights whose last layers are for the classes of a model of the same kind.

    Their rows are found by the names of the classes, or start afresh if asked for; layers of all classes
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
    last = {key: value for key, value in model.state_dict().items() if model.class_layers.match(key)}
    if not reset_head:
        return take_rows(state, last, model.config, given, source)
    same = model.config.rows == given.rows
    own = {k: v for k, v in last.items() if same or k not in state or state[k].shape != v.shape}
    return {**state, **own}


def take_rows(
    state: Mapping[str, Tensor], fresh: Mapping[str, Tensor], wanted: TaskConfig, given: TaskConfig, source: str
) -> dict[str, Tensor]:
    """Return start weights whose last layers have the classes of the new model, and say what begins afresh.

    Args:
        state: the start weights.
        fresh: the last layers of the new model; rows of classes that `state` lacks come from here.
        wanted: the configuration of the new model, with K classes.
        given: the configuration of the start weights, with S classes.
        source: what messages call the weights.

    Raises:
        ValueError: a name stands for two classes, or a side has no names and the numbers of classes differ.
    """
    match = match_classes(wanted.class_names or wanted.num_classes, given.class_names or given.num_classes)
    if match is None:
        raise ValueError(
            f"{source} has {given.num_classes} classes but the data set has {wanted.num_classes}; "
            "set model.reset_head=true to start with new last layers"
        )
    total, kept = len(match.rows), len(match.rows) - len(match.missing)
    missing = some_names(match.missing)
    if kept == 0:
        logger.warning("%s knows none of the classes %s: the last layers start afresh", source, missing)
    elif match.missing:
        text = "%s knows %d of the %d classes: their rows of the last layers are taken over, those of %s start afresh"
        logger.warning(text, source, kept, total, missing)
    elif not match.is_identity:
        logger.info("the rows of the last layers are taken from %s by the names of the %d classes", source, total)
    if not match.by_name and (wanted.class_names or given.class_names):
        logger.warning("the classes of one side have no names but numbers: the rows of %s are taken by number", source)
    return _taken(state, fresh, match, wanted.num_classes, given.num_classes)


def in_order_of_names(model: AnyModel, given_names: Sequence[str] | None) -> None:
    """Move the rows of the last layers of a filled model where its names are those of the weights in another order.

    Names that the weights do not have rename the classes at their places.

    Args:
        model: a model whose last layers are those of the weights.
        given_names: names of the classes of the weights, or None.

    Raises:
        ValueError: some names stand at other places than in the weights, and others are not known to them.
    """
    names = model.config.class_names
    if names is None or given_names is None or len(names) != len(given_names):
        return
    match = match_classes(names, given_names)
    if match is None or not match.by_name or all(row in (NONE, i) for i, row in enumerate(match.rows)):
        return
    if match.missing:
        moved = next(name for i, (name, row) in enumerate(zip(names, match.rows, strict=True)) if row not in (NONE, i))
        raise ValueError(
            f"class_names has {moved!r:.60} at another place than the weights, which do not know "
            f"{some_names(match.missing)}. To rename classes give all names in the order of the weights "
            f"({some_names(given_names)}); to learn other classes train from the weights (model.weights=...)"
        )
    state = model.state_dict()
    last = {key: value for key, value in state.items() if model.class_layers.match(key)}
    model.load_state_dict(_taken(state, last, match, len(names), len(names)))


def _taken(
    state: Mapping[str, Tensor], fresh: Mapping[str, Tensor], match: ClassMatch, classes: int, given_classes: int
) -> dict[str, Tensor]:
    """Replace each last layer that both sides have, of the same inputs."""
    both = [key for key in state if key in fresh and state[key].shape[1:] == fresh[key].shape[1:]]
    return {**state, **{key: _rows(key, state[key], fresh[key], match, classes, given_classes) for key in both}}


def _rows(key: str, given: Tensor, fresh: Tensor, match: ClassMatch, classes: int, given_classes: int) -> Tensor:
    """Return the rows of one layer.

    A class has one row, or four for its box; behind the classes may stand rows of no class (background, outputs without
    a use), which are taken over where both have as many.
    """
    unit = BOX_SIDES if REGRESSION in key else 1
    if unit == BOX_SIDES and (len(given), len(fresh)) != (unit * given_classes, unit * classes):
        return given  # one regression for all classes
    result = fresh.clone()
    for row, source in enumerate(match.rows):
        if source != NONE:
            result[row * unit : (row + 1) * unit] = given[source * unit : (source + 1) * unit]
    rest = len(fresh) - unit * classes
    if rest and rest == len(given) - unit * given_classes:
        result[-rest:] = given[-rest:]
    return result
