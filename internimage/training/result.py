"""What a run leaves behind."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internimage.files import finite_or_none


@dataclass(frozen=True)
class TrainingResult:
    """What a run left behind.

    Args:
        best: weights with the highest validation metric; None before the first validation.
        last: weights of the end.
        history: rows of metrics.csv.
        interrupted: the run was stopped by Ctrl-C or SIGTERM; it can be resumed.
        metric: column of the history that decides which weights are the best.
        stopped_by: number of the signal that interrupted the run, else None.
    """

    best: Path | None
    last: Path | None
    history: list[dict[str, float]]
    interrupted: bool
    metric: str
    stopped_by: int | None = None

    @property
    def best_value(self) -> float | None:
        """The highest value of the metric, None before the first validation that could measure it."""
        return max((row[self.metric] for row in self.history if math.isfinite(row[self.metric])), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready summary; what could not be measured is None."""
        summary = {
            "best": None if self.best is None else str(self.best),
            "last": None if self.last is None else str(self.last),
            "interrupted": self.interrupted,
            "metric": self.metric,
            "best_value": self.best_value,
            "history": self.history,
        }
        return finite_or_none(summary)
