"""What a run measures of itself: losses since the last validation, whether they are finite, whether steps wait."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

import torch
from torch import Tensor

from internimage import parallel
from internimage.processors import load, usable_processors

logger = logging.getLogger(__name__)
FEWEST_STEPS = 3
# Wall time over processor time from which on a run waits more than it works; with several threads it is below 1.
WAITING = 2.0


class MeterSums(TypedDict):
    """What `Meters` has added up."""

    loss: Tensor
    terms: dict[str, Tensor]
    steps: int
    seconds: float


class Meters:
    """Running sums between two validations; part of the saved state.

    Args:
        device: where the losses are; they are read only when a row is written.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.first_bad = torch.tensor(-1, device=device)  # the step whose loss was the first that is not finite
        self.terms: dict[str, Tensor] = {}
        self.steps = 0
        self.seconds = 0.0

    def add(self, loss: Tensor, terms: Mapping[str, Tensor], *, fraction: float, step: int) -> None:
        """Count the loss of a batch of a step, and its terms, each of which counts `fraction`."""
        self.loss += loss.detach()
        is_first = (self.first_bad < 0) & ~torch.isfinite(self.loss)
        self.first_bad = torch.where(is_first, step, self.first_bad)
        for name, value in terms.items():
            kept = self.terms.get(name, torch.zeros_like(self.loss))
            self.terms[name] = kept + value.detach() * fraction

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Count the seconds of the block."""
        started = time.monotonic()
        yield
        self.seconds += time.monotonic() - started

    def state(self) -> MeterSums:
        """Return the sums for `restore`."""
        terms = {name: value.cpu() for name, value in self.terms.items()}
        return {"loss": self.loss.cpu(), "terms": terms, "steps": self.steps, "seconds": self.seconds}

    def restore(self, states: Sequence[MeterSums]) -> None:
        """Take over what `state` returned.

        Args:
            states: of each process; where another number of them goes on, each takes over the mean.
        """
        own = states[parallel.rank() : parallel.rank() + 1] if len(states) == parallel.world() else states
        self.loss.copy_(torch.stack([state["loss"] for state in own]).mean())
        self.terms = {
            name: torch.stack([state["terms"][name] for state in own]).mean().to(self.loss.device)
            for name in own[0]["terms"]
        }
        self.steps, self.seconds = own[0]["steps"], own[0]["seconds"]


def first_not_finite(state: Mapping[str, object]) -> str | None:
    """Return the name of the first tensor that holds NaN or an infinite number, None where all are finite.

    Args:
        state: tensors in dictionaries and lists of any depth; other values are passed over.

    Example:
        >>> first_not_finite({"model": {"weight": torch.tensor([1.0, float("nan")])}})
        'model weight'
    """
    tensors = [(name, value) for name, value in _tensors(state, "") if value.is_floating_point() and value.numel()]
    by_device: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for name, value in tensors:
        by_device.setdefault(value.device, []).append((name, torch.isfinite(value).all()))
    for entries in by_device.values():  # one answer for each device, since each makes an accelerator wait
        are_sound = torch.stack([is_sound for _, is_sound in entries]).tolist()
        if not all(are_sound):
            return entries[are_sound.index(False)][0].strip()
    return None


def _tensors(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value.detach()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors(inner, f"{name} {key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _tensors(inner, f"{name} {number}")


def diverged(what: str, *, step: int, total: int, lr: float, precision: str, kept: str) -> FloatingPointError:
    """Return the error of a run that cannot go on: where it stands, what is kept and what to try.

    Args:
        what: what is not finite.
        step: number of the last step.
        total: steps of the whole run.
        lr: learning rate of the step.
        precision: the setting run.precision.
        kept: what the folder of the run still holds.
    """
    other = "" if precision == "fp32" else ", or with run.precision=fp32"
    return FloatingPointError(
        f"{what} at step {step} of {total} (learning rate {lr:.3g}, precision {precision}), so the run cannot go on; "
        f"{kept}. Start in another folder with a lower learning rate (optimizer.lr...){other}; check the data where "
        "this happens at the first steps"
    )


class BusyHint:
    """Compares the time that steps take with the processor time that they use, and says once when they wait.

    Args:
        device: where the steps are computed; nothing is said of an accelerator.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_said = device.type != "cpu" or parallel.rank() > 0
        self.wall = self.processor = 0.0
        self.steps = 0

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Count a step."""
        wall, processor = time.monotonic(), time.process_time()
        yield
        self.wall += time.monotonic() - wall
        self.processor += time.process_time() - processor
        self.steps += 1
        self._say()

    def _say(self) -> None:
        busy = load()
        if self._is_said or self.steps < FEWEST_STEPS or busy is None or busy <= usable_processors():
            return
        if self.wall < WAITING * self.processor:
            return
        self._is_said = True
        threads, sleeps = torch.get_num_threads(), os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
        advice = (
            "" if threads == 1 or sleeps else "; run.threads=1, or OMP_WAIT_POLICY=PASSIVE in the environment, may help"
        )
        logger.warning(
            "a step takes %.2g s but uses %.2g s of processor time: %.0f programs want the %d processors%s",
            self.wall / self.steps,
            self.processor / self.steps,
            busy,
            usable_processors(),
            advice,
        )
