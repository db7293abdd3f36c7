"""Last layers on given weights: each class takes over the rows of the class of its name.

Shape legend: K classes of the new model, S classes of the start weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor

from internimage.data.class_names import NONE, Classes, ClassMatch, match_classes, some_names
from internimage.flow import AnyModel

logger = logging.getLogger(__name__)

BOX_SIDES, REGRESSION = 4, ".regressor."


def match_to_weights(wanted: Classes, offered: Classes, source: str) -> ClassMatch | None:
    """Find the classes of a new model among those of its start weights, and say what begins afresh.

    Args:
        wanted: names of the new model's classes, or their number.
        offered: names of the classes of the weights, or their number.
        source: what messages call the weights.

    Returns:
        The match; None where a side has no names and the numbers of classes differ.

    Raises:
        ValueError: a name stands for two classes.
    """
    match = match_classes(wanted, offered)
    if match is None:
        return None
    total, kept = len(match.rows), len(match.rows) - len(match.missing)
    if kept == 0:
        logger.warning(
            "%s knows none of the classes %s: the last layers start afresh", source, some_names(match.missing)
        )
    elif match.missing:
        logger.warning(
            "%s knows %d of the %d classes: their rows of the last layers are taken over, those of %s start afresh",
            source,
            kept,
            total,
            some_names(match.missing),
        )
    elif not match.is_identity:
        logger.info("the rows of the last layers are taken from %s by the names of the %d classes", source, total)
    if not match.by_name and not (isinstance(wanted, int) and isinstance(offered, int)):
        logger.warning("the classes of one side have no names but numbers: the rows of %s are taken by number", source)
    return match


def take_rows(
    state: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
    match: ClassMatch,
    *,
    classes: int,
    given_classes: int,
    is_class_layer: Callable[[str], object],
) -> dict[str, Tensor]:
    """Return start weights whose last layers have the classes of the new model.

    Args:
        state: the start weights.
        fresh: the weights of the new model; rows of classes that `state` lacks come from here.
        match: the class of the start weights for each class of the new model.
        classes: K.
        given_classes: S.
        is_class_layer: whether the layer of a name has rows for classes.
    """
    taken = dict(state)
    for key in _both(state, fresh):
        if is_class_layer(key):
            taken[key] = _rows(key, state[key], fresh[key], match, classes, given_classes)
    return taken


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
    number = len(names)
    taken = take_rows(
        state, state, match, classes=number, given_classes=number, is_class_layer=model.class_layers.match
    )
    model.load_state_dict(taken)


def _both(state: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> Iterable[str]:
    return (key for key in state if key in fresh and state[key].shape[1:] == fresh[key].shape[1:])


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
