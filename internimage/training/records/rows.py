"""The rows of a run, the files that show them, and what a run leaves behind."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from internimage import parallel
from internimage.errors import MissingExtra
from internimage.files import finite_or_none, replacing
from internimage.recipe import RunSettings
from internimage.training.records.trackers import Trackers, tracker_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Records:
    """The rows of a run and the files that show them.

    Args:
        out: folder of the run.
        settings: which files are written besides metrics.csv, and which trackers there are.
        shown: settings of the run, which trackers show.

    Raises:
        MissingExtra: matplotlib or a tracker is wanted and not installed.
    """

    def __init__(self, out: Path, settings: RunSettings, shown: Mapping[str, object] | None = None) -> None:
        self.out = out
        self.rows: list[dict[str, float]] = []
        self.track_every = settings.track_every if tracker_names(settings) else 0
        self._figure = _figure_class() if settings.plot else None
        self._trackers = Trackers(tracker_names(settings) if parallel.rank() == 0 else [], out, shown or {})

    def start(self, step: int) -> None:
        """Start the trackers of the first process, at the step with this number."""
        self._trackers.start(step)

    def track(self, values: Mapping[str, float], step: int) -> None:
        """Give values of a step to the trackers of the first process."""
        self._trackers.log(values, step)

    def add(self, row: dict[str, float], terms: dict[str, float]) -> None:
        """Append the row of a validation; the first process brings every file up to date.

        Args:
            row: columns of metrics.csv.
            terms: mean of each loss since the row before, for the trackers.
        """
        self.rows.append(row)
        if parallel.rank() > 0:
            return
        self.write_csv()
        shown = {name: value for name, value in row.items() if name != "step"}
        self.track({**shown, **{f"loss/{name}": value for name, value in terms.items()}}, int(row["step"]))
        if self._figure is not None:
            with replacing(self.out / "curves.png") as temporary:
                draw_curves(self._figure, self.rows, temporary)

    def write_csv(self) -> None:
        """Write metrics.csv anew from the rows, which drops what an interrupted run wrote after its last state."""
        with (
            replacing(self.out / "metrics.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            if self.rows:
                writer.writerow(self.rows[0])
            writer.writerows([_short(value) for value in row.values()] for row in self.rows)

    def close(self) -> None:
        """End the trackers."""
        self._trackers.close()


def draw_curves(figure_class: type[Figure], rows: list[dict[str, float]], path: Path) -> None:
    """Draw losses, metrics and learning rate over the steps as a PNG."""
    figure = figure_class(figsize=(12, 3.6), layout="constrained")
    losses, metrics, rate = figure.subplots(1, 3)
    steps = [row["step"] for row in rows]
    losses.plot(steps, [row["train_loss"] for row in rows], label="training (augmented)")
    if "val_loss" in rows[0]:
        losses.plot(steps, [row["val_loss"] for row in rows], label="validation")
    losses.set(title="loss", xlabel="step")
    for name in rows[0]:
        if name.startswith("val_") and name != "val_loss":
            metrics.plot(steps, [100 * row[name] for row in rows], label=name.removeprefix("val_"))
    metrics.set(title="validation (%)", xlabel="step")
    rate.plot(steps, [row["lr"] for row in rows], label="last step before a validation")
    rate.set(title="learning rate", xlabel="step")
    for axes in (losses, metrics, rate):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, format="png", dpi=100)


def _short(value: float) -> str | int:
    return value if isinstance(value, int) else f"{value:.6g}"


def _figure_class() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "train", "the plot of a run (run.plot=false goes without)") from error
    return Figure


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

    def to_dict(self) -> dict[str, object]:
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
