"""Is there anything to learn from? Asked before the first step, so that no run ends with nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from internimage.data.examples import ExampleCount

logger = logging.getLogger(__name__)
SHOWN = 10


def check_examples(count: ExampleCount, *, place: str, fewest_classes: int = 1) -> None:
    """Log the examples of each class, warn of classes without any, and refuse data that nothing can be learned from.

    Args:
        count: the examples of the training part.
        place: what messages call the data.
        fewest_classes: classes that must have examples: 2 where a class is learned only against others.

    Raises:
        ValueError: fewer classes have examples; the message says what is there instead.
    """
    shown = sorted(zip(count.class_names, count.counts, strict=True), key=lambda row: -row[1])
    table = ", ".join(f"{name} {number}" for name, number in shown[:SHOWN]) + (", ..." if len(shown) > SHOWN else "")
    found = f"{sum(count.counts)} {count.unit}"
    where = "" if found == count.scope else f" in {count.scope}"  # a classifier's examples are the images
    logger.info("learns from %s%s: %s", found, where, table)
    reasons = count.reasons()
    present = count.present
    is_certain = count.is_complete or len(count.class_names) < fewest_classes
    if len(present) < fewest_classes and (is_certain or not present):
        what = (
            f"only the class {present[0]!r} occurs, so that there is nothing to tell it from"
            if present
            else f"nothing can be learned, there are no {count.unit}"
        )
        raise ValueError(f"{place}: {what}{': ' if reasons else ''}{reasons}")
    if count.absent:
        logger.warning(
            "%s: no %s of %s in %s, so %s cannot be learned%s%s",
            place,
            count.unit,
            _listed(count.absent),
            count.scope,
            "it" if len(count.absent) == 1 else "they",
            "; " if reasons else "",
            reasons,
        )


def check_targets(count: ExampleCount, *, place: str) -> bool:
    """Return whether the validation part shows anything that a model can be measured by; warn where it does not.

    Args:
        count: what there is to be found in the validation part.
        place: what the message calls the data.
    """
    if count.present:
        return True
    reasons = count.reasons()
    logger.warning(
        "%s: the validation part holds no %s, so nothing is measured and the last weights are the only ones%s%s",
        place,
        count.unit,
        "; " if reasons else "",
        reasons,
    )
    return False


def _listed(names: Sequence[str]) -> str:
    quoted = ", ".join(repr(name) for name in names[:SHOWN])
    return f"{quoted} and {len(names) - SHOWN} more classes" if len(names) > SHOWN else quoted
