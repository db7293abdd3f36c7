"""Is there anything to measure? Figures of nothing are no figures."""

from __future__ import annotations

from collections.abc import Sequence

from internimage.data.examples import ExampleCount


def refuse_no_truth(count: ExampleCount, place: str) -> None:
    """Raise a ValueError where a data set shows nothing that answers could be compared with.

    Args:
        count: what there is to be found.
        place: what the message calls the data set.
    """
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
