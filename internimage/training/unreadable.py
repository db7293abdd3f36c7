"""Broken images of a training set: reported once each, and not too many."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from internimage.data import Unreadable

logger = logging.getLogger(__name__)


class UnreadableLimit:
    """Warns once for each broken image and stops the run when there are too many.

    Args:
        limit: broken images that are bearable, the setting data.max_unreadable.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.seen: set[int] = set()

    def report(self, unreadable: Iterable[Unreadable]) -> None:
        """Count and log broken images that were not seen before.

        Raises:
            ValueError: there are more than the limit.
        """
        for broken in unreadable:
            if broken.index in self.seen:
                continue
            self.seen.add(broken.index)
            logger.warning("left out an image that cannot be read: %s", broken.reason)
            if len(self.seen) > self.limit:
                raise ValueError(
                    f"more than {self.limit} training images cannot be read (data.max_unreadable); "
                    f"the last one: {broken.reason}"
                )
