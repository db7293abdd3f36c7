"""Broken images: counted once each, and not too many."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from internimage.data.dataset import Unreadable

logger = logging.getLogger(__name__)

SHOWN = 10


class UnreadableLimit:
    """Counts each broken image once and raises when there are too many.

    Args:
        limit: broken images that are bearable.
        in_training: whether they are those of a training set, which the log names: no report will list them.
    """

    def __init__(self, limit: int, *, in_training: bool = False) -> None:
        self.limit, self.in_training = limit, in_training
        self.reasons: dict[int, str] = {}

    def report(self, unreadable: Iterable[Unreadable]) -> None:
        """Count broken images.

        Raises:
            ValueError: there are more than the limit; the message names the first ones.
        """
        for broken in unreadable:
            if broken.index not in self.reasons:
                self.reasons[broken.index] = broken.reason
                if self.in_training:
                    logger.warning("left out an image that cannot be read: %s", broken.reason)
        if len(self.reasons) > self.limit:
            images, setting = ("training images", "data.") if self.in_training else ("images", "")
            first = list(self.reasons.values())[:SHOWN]
            listed = f" one: {first[0]}" if len(first) == 1 else "".join([" ones:", *(f"\n  {text}" for text in first)])
            raise ValueError(
                f"more than {self.limit} {images} cannot be read ({setting}max_unreadable); the first{listed}"
            )
