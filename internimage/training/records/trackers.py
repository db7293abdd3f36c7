"""The services that show runs, each through accelerate: TensorBoard, Weights & Biases, MLflow, Trackio."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from internimage.errors import MissingExtra
from internimage.files import replacing, writing
from internimage.recipe import RunSettings

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker  # pyright: ignore[reportMissingImports]  # an extra

NAMES_FILE = "trackers.json"
PROJECT = "internimage"
# What goes without the package, for the message that it is missing.
_WITHOUT = {"tensorboard": "run.tensorboard=false goes without", "accelerate": "run.tensorboard=false goes without"}


def tracker_names(settings: RunSettings) -> list[str]:
    """Return which trackers a run has.

    Example:
        >>> tracker_names(RunSettings(trackers=("wandb",)))
        ['tensorboard', 'wandb']
    """
    return list(dict.fromkeys([*(["tensorboard"] if settings.tensorboard else []), *settings.trackers]))


class Trackers:
    """The trackers of a run, in its first process; a run that goes on goes on in them, too.

    Args:
        names: see `tracker_names`.
        out: folder of the run.
        settings: of the run, which trackers show.

    Raises:
        MissingExtra: the package of a tracker is not installed.
    """

    def __init__(self, names: list[str], out: Path, settings: Mapping[str, object]) -> None:
        for package in [*(["accelerate"] if names else []), *names]:
            if importlib.util.find_spec(package) is None:
                extra = "train" if package in _WITHOUT else package
                way = _WITHOUT.get(package, "leave it out of run.trackers to go without")
                raise MissingExtra(package, extra, f"the tracker of a run ({way})")
        self._names, self._out, self._settings = names, out, settings
        self._running: list[GeneralTracker] | None = None

    def start(self, step: int) -> None:
        """Start the trackers, so that one that cannot work says so before the first step.

        Args:
            step: number of the first step that they are to show.
        """
        if self._names and self._running is None:
            with writing(self._out / self._names[0]):
                self._running = self._started(step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Show values of a step.

        Raises:
            OSError: the disk is full.
        """
        with writing(self._out / "".join(self._names[:1])), _raised_once():
            self.start(step)
            for tracker in self._running or ():
                tracker.log(dict(values), step=step)

    def close(self) -> None:
        """Let the trackers write what they hold."""
        with writing(self._out / "".join(self._names[:1])), _raised_once():
            for tracker in self._running or ():
                tracker.finish()
        self._running = None

    def _started(self, step: int) -> list[GeneralTracker]:
        from accelerate import PartialState  # pyright: ignore[reportMissingImports]  # an extra

        PartialState()  # the log of accelerate asks for it
        path = self._out / NAMES_FILE
        known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        running = [self._start(name, known, step) for name in self._names]
        if known:
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        return running

    def _start(self, name: str, known: dict[str, str], step: int) -> GeneralTracker:
        """Start a tracker; `known` holds under which names the services have the run, and gets a new one."""
        from accelerate import tracking  # pyright: ignore[reportMissingImports]  # an extra

        out, label, is_new = self._out, self._out.absolute().name, name not in known
        if name == "tensorboard":
            # The purge hides what an interrupted run wrote after the state that this one resumed.
            tracker = tracking.TensorBoardTracker("tensorboard", out, purge_step=step)
            tracker.start()
            return tracker
        if name == "mlflow":
            tracker = tracking.MLflowTracker(PROJECT, run_id=known.get(name), run_name=label)
            tracker.start()
            known[name] = tracker.tracker.info.run_id
        else:
            project = os.environ.get(f"{name.upper()}_PROJECT", PROJECT)
            own = known.setdefault(name, f"{label}-{uuid.uuid4().hex[:8]}")
            if name == "wandb":
                tracker = tracking.WandBTracker(project, id=own, name=label, dir=str(out), resume="allow")
            else:
                tracker = tracking.TrackioTracker(project, name=own, resume="allow")
            tracker.start()
        if is_new:
            tracker.store_init_configuration(dict(self._settings))
        return tracker


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
