"""What a run writes down and leaves behind: metrics.csv, TensorBoard events, the plot, its result."""

from __future__ import annotations

import contextlib
import csv
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from internimage import parallel
from internimage.errors import MissingExtra
from internimage.files import finite_or_none, replacing, writing
from internimage.recipe import RunSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter


class Records:
    """The rows of a run and the files that show them.

    Args:
        out: folder of the run.
        settings: which files are written besides metrics.csv.

    Raises:
        MissingExtra: TensorBoard or matplotlib is wanted and not installed.
    """

    def __init__(self, out: Path, settings: RunSettings) -> None:
        self.out = out
        self.rows: list[dict[str, float]] = []
        self._figure = _figure_class() if settings.plot else None
        self._writer_class = _tensorboard_class() if settings.tensorboard else None
        self._writer: SummaryWriter | None = None

    def add(self, row: dict[str, float], terms: dict[str, float]) -> None:
        """Append the row of a validation; the first process brings every file up to date.

        Args:
            row: columns of metrics.csv.
            terms: mean of each loss since the row before, for TensorBoard.
        """
        self.rows.append(row)
        if parallel.rank() > 0:
            return
        self.write_csv()
        if self._writer_class is not None:
            with writing(self.out / "tensorboard"), _raised_once():
                self._write_events(self._writer_class, row, terms)
        if self._figure is not None:
            with replacing(self.out / "curves.png") as temporary:
                draw_curves(self._figure, self.rows, temporary)

    def _write_events(self, writer_class: type[SummaryWriter], row: dict[str, float], terms: dict[str, float]) -> None:
        step = int(row["step"])
        if self._writer is None:
            # The purge hides what an interrupted run wrote after the state that this one resumed.
            self._writer = writer_class(str(self.out / "tensorboard"), purge_step=step)
        scalars = {name: value for name, value in row.items() if name not in ("epoch", "step")}
        scalars |= {f"loss/{name}": value for name, value in terms.items()}
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

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
        """Close the TensorBoard file."""
        if self._writer is not None:
            with writing(self.out / "tensorboard"), _raised_once():
                self._writer.close()


@contextlib.contextmanager
def _raised_once() -> Iterator[None]:
    """Keep the traceback of TensorBoard's thread from the terminal: its failed write is raised here, too."""
    before = threading.excepthook

    def show(failure: threading.ExceptHookArgs) -> None:
        if not isinstance(failure.exc_value, OSError):
            before(failure)

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = before


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


def _tensorboard_class() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra(
            "tensorboard", "train", "the TensorBoard log of a run (run.tensorboard=false goes without)"
        ) from error
    return SummaryWriter


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
