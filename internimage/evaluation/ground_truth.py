"""Is there anything to measure? Metrics of nothing are no metrics."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from internimage.data.class_names import some_names
from internimage.data.examples import ExampleCount

logger = logging.getLogger(__name__)


def refuse_no_targets(count: ExampleCount, place: str) -> None:
    """Raise a ValueError where a data set shows nothing that predictions could be compared with."""
    if not count.present:
        reasons = count.reasons()
        raise ValueError(
            f"{place}: there is nothing to measure, no {count.unit} to compare answers with in {count.scope}"
            f"{'; ' if reasons else ''}{reasons}"
        )


def refuse_none_read(num_read: int, reasons: Sequence[str]) -> None:
    """Raise a ValueError where not one image of a data set could be read."""
    if not num_read:
        first = f"; the first one: {reasons[0]}" if reasons else ""
        raise ValueError(f"there is nothing to measure: none of {len(reasons)} images could be read{first}")


def warn_of_one_class(pixels: Sequence[int], class_names: Sequence[str]) -> None:
    """Say that metrics of a segmentor tell nothing where all labeled pixels, counted by class, are of one class."""
    present = [name for name, number in zip(class_names, pixels, strict=True) if number]
    if len(present) == 1 and len(class_names) > 1:
        logger.warning(
            "all labeled pixels are of the class %r, of %s there are none: the metrics tell nothing. The value 255 "
            "stands for pixels without a label; if it marks a class, give the value of each class in classes.json "
            '("classes", "values")',
            present[0],
            some_names([name for name in class_names if name != present[0]]),
        )
