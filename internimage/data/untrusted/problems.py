"""Broken annotations: collected by file and place, then reported together."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

logger = logging.getLogger(__name__)

Broken = Literal["leave_out", "raise"]
KEPT, SHOWN = 1000, 20


@dataclass(frozen=True)
class Problem:
    """One broken annotation.

    Args:
        file: the annotation file.
        place: line or entry, for example "line 3" or "annotations[17] (id 42)".
        reason: what is wrong and what was expected.
    """

    file: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: {self.reason}"


class ProblemLog:
    """Collects what is wrong with the annotations of a data set.

    Args:
        broken: "leave_out" drops broken entries and says so once in the log, "raise" refuses the data set.
    """

    def __init__(self, broken: Broken) -> None:
        if broken not in ("leave_out", "raise"):
            raise ValueError(f"broken must be 'leave_out' or 'raise', given {broken!r}")
        self.broken = broken
        self.count = 0
        self.problems: list[Problem] = []  # the first ones: a hostile file may have millions

    def add(self, file: Path, place: str, reason: str) -> None:
        """Note one broken entry."""
        self.count += 1
        if len(self.problems) < KEPT:
            self.problems.append(Problem(str(file), place, reason))

    def finish(self, name: str) -> tuple[Problem, ...]:
        """Report what was collected and return the first thousand problems.

        Raises:
            ValueError: there are problems and `broken` is "raise"; the message lists the first twenty.
        """
        if not self.count:
            return ()
        lines = [str(problem) for problem in self.problems[:SHOWN]]
        if self.count > SHOWN:
            lines.append(f"... and {self.count - SHOWN} more")
        text = "\n  ".join([f"{name} has {self.count} broken annotations:", *lines])
        if self.broken == "raise":
            raise ValueError(f"{text}\nMend them, or open the data set with broken='leave_out'")
        logger.warning("%s\nThey are left out", text)
        return tuple(self.problems)
