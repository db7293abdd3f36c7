"""The training loop: a task, an optimizer and records wired together; every number of a run is resumable."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch

from internimage.training.console import progress_bar, stop_on_signals
from internimage.training.ema import build_ema
from internimage.training.engine import Engine, chosen_device
from internimage.training.own_data import as_started
from internimage.training.precision import with_precision
from internimage.training.randomness import generator_state, set_generator_state
from internimage.training.recipes import recipe as find_recipe
from internimage.training.records import Records
from internimage.training.settings import OptimizerSettings, Recipe
from internimage.training.since import Since
from internimage.training.state import (
    STATE_FILE,
    flat_settings,
    load_state,
    refuse_other_settings,
    save_recipe,
    save_state,
)
from internimage.training.task import TrainingTask
from internimage.training.tasks import build_task
from internimage.zoo.document import AnyModel
from internimage.zoo.weights import save_model

logger = logging.getLogger(__name__)
CHECK_EVERY = 50


@dataclass(frozen=True)
class TrainingResult:
    """What a run left behind.

    Args:
        best: weights with the highest validation metric; None before the first validation.
        last: weights of the end.
        history: rows of metrics.csv.
        interrupted: the run was stopped by Ctrl-C or SIGTERM; it can be resumed.
        metric: column of the history that decides which weights are the best.
    """

    best: Path | None
    last: Path | None
    history: list[dict[str, float]]
    interrupted: bool
    metric: str

    @property
    def best_value(self) -> float | None:
        """The highest value of the metric, None before the first validation."""
        return max((row[self.metric] for row in self.history), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready summary."""
        return {
            "best": None if self.best is None else str(self.best),
            "last": None if self.last is None else str(self.last),
            "interrupted": self.interrupted,
            "metric": self.metric,
            "best_value": self.best_value,
            "history": self.history,
        }


def train(
    recipe: Recipe | str,
    *,
    data: str | PathLike[str],
    out: str | PathLike[str],
    resume: bool = False,
    overrides: Sequence[str] = (),
    device: torch.device | str | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train a classifier, a detector or a segmentor.

    Args:
        recipe: a recipe or the name of one.
        data: folder of the data set, in a layout that the task of the recipe reads.
        out: folder of the run: recipe.json, metrics.csv, curves.png, tensorboard/, best.safetensors,
            last.safetensors and state.pt.
        resume: go on with the run in `out`; on the CPU the result equals that of an uninterrupted run bit for bit.
        overrides: "section.key=value" texts, see `Recipe.with_overrides`.
        device: where to train; None takes the accelerator when there is one.
        progress: show a progress bar on stderr.

    Returns:
        Where the weights are and how the run went.

    Raises:
        UnknownName: no such recipe or setting.
        ValueError: a setting, the data or the state to resume does not fit.
        FileExistsError: `out` holds a run and `resume` is false.
        FileNotFoundError: the data set, or the state to resume, does not exist.
        MissingExtra: the recipe needs the extra `train`.
    """
    chosen = (find_recipe(recipe) if isinstance(recipe, str) else recipe).with_overrides(overrides)
    folder = Path(out)
    if not resume and (folder / STATE_FILE).exists():
        raise FileExistsError(f"{folder} holds a run already; resume it or choose another folder")
    state = load_state(folder) if resume else None
    if state is not None:
        chosen = as_started(chosen, state["settings"])
        refuse_other_settings(state["settings"], chosen)
    trainer = Trainer(chosen, data=data, out=folder, device=device, progress=progress)
    if state is not None:
        trainer.restore(state)
    return trainer.run()


class Trainer:
    """A run: `Trainer(...)` builds everything, `restore` takes over a saved state, `run` trains.

    Args:
        recipe: every setting of the run.
        data: folder of the data set.
        out: folder of the run; created when it does not exist.
        device: where to train; None takes the accelerator when there is one.
        progress: show a progress bar on stderr.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        data: str | PathLike[str],
        out: Path,
        device: torch.device | str | None = None,
        progress: bool = True,
    ) -> None:
        self.out, self.progress = out, progress
        recipe = with_precision(recipe, place := chosen_device(device))
        self.engine = Engine(place, recipe.run)
        logger.info("reads the data in %s", data)
        self.task: TrainingTask[Any, Any] = build_task(recipe, data, rank=self.engine.rank, world=self.engine.world)
        self.recipe = recipe = self.task.recipe
        self.model = self.task.model.to(self.engine.device)
        self.ema = build_ema(self.model, recipe.ema) if recipe.ema.decay else None
        self.optimizer = build_optimizer(self.task.param_groups(), recipe.optimizer)
        self.schedule = self.task.schedule
        self.steps_per_epoch = self.task.batches_per_epoch // recipe.optimizer.accumulation_steps
        out.mkdir(parents=True, exist_ok=True)
        self.records = Records(out, recipe.run)
        self.step = 0
        self.best_value = -math.inf
        self._since = Since(self.engine.device)
        self._last_save = time.monotonic()

    def run(self) -> TrainingResult:
        """Train to the end, or until Ctrl-C or SIGTERM, which save the state first."""
        save_recipe(self.out, self.recipe)
        if self.step == 0:
            self.save()
        total, shown = self.schedule.total_steps, self.progress and self.engine.is_main
        with stop_on_signals() as stop, progress_bar(total, completed=self.step, shown=shown) as show:
            while self.step < total and not stop.is_set():
                self._train_epoch(stop.is_set, show)
        self.save()
        self.records.close()
        best, last = self.out / "best.safetensors", self.out / "last.safetensors"
        return TrainingResult(
            best if best.exists() else None,
            last if last.exists() else None,
            self.records.rows,
            interrupted=self.step < total,
            metric=self.task.metric,
        )

    def _train_epoch(self, stopped: Callable[[], bool], show: Callable[[int, str], None]) -> None:
        """Train the rest of the present epoch, validating where it is due, unless the run is stopped."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        accumulation = self.recipe.optimizer.accumulation_steps
        micro_batches = self.task.epoch(epoch, start=done * accumulation)
        steps = min(self.steps_per_epoch - done, self.schedule.total_steps - self.step)
        self.model.train()
        for _ in range(steps):
            with self._since.timed():
                self._train_step([next(micro_batches) for _ in range(accumulation)])
            show(self.step, f"{epoch + 1}/{math.ceil(self.schedule.total_steps / self.steps_per_epoch)}")
            if self.step % self.schedule.validate_every == 0 or self.step == self.schedule.total_steps:
                self._validate(epoch + 1)
                self.model.train()
            elif stopped() or time.monotonic() - self._last_save > 60 * self.recipe.run.save_minutes:
                self.save()
                loss = self.engine.mean(self._since.loss) / self._since.steps
                logger.info("saved at step %d of %d, loss %.5g", self.step, self.schedule.total_steps, loss)
            if stopped():
                return

    def _train_step(self, micro_batches: list[Any]) -> None:
        """One optimizer step over one or more batches."""
        self.schedule.apply(self.optimizer, self.step)
        for batch in micro_batches:
            with self.engine.autocast():
                losses = self.task.loss(batch, self.engine.device)
                loss = sum(losses.values(), torch.zeros((), device=self.engine.device)) / len(micro_batches)
            self.engine.backward(loss)
            self._since.add(loss, losses, share=1 / len(micro_batches))
        self.engine.step(self.optimizer, self.model.parameters(), clip_norm=self.recipe.optimizer.clip_norm)
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.step += 1
        self._since.steps += 1
        if self.step % CHECK_EVERY == 0 or self.step % self.schedule.validate_every == 0:
            self._refuse_nan()

    def _refuse_nan(self) -> None:
        """Stop a run that has diverged, before a state of it is saved."""
        if not math.isfinite(self.engine.mean(self._since.loss)):
            raise FloatingPointError(
                f"the loss is not finite at step {self.step}; lower the learning rate (optimizer.lr...), or resume "
                "from the last state in the folder of the run"
            )

    def _validate(self, epoch: int) -> None:
        """Measure the model, write the row, the weights and the state."""
        since, delivered = self._since, self.delivered
        measured = self.task.validate(delivered)
        pictures = since.steps * self.recipe.optimizer.accumulation_steps * self.task.batch_size
        row = {
            "epoch": epoch,
            "step": self.step,
            "lr": self.schedule.lr(self.step - 1),
            "train_loss": self.engine.mean(since.loss) / since.steps,
            **measured,
            "images_per_second": pictures * self.engine.world / since.seconds,
            "seconds": since.seconds,
        }
        logger.info("epoch %d: %s", epoch, ", ".join(f"{key} {value:.5g}" for key, value in row.items()))
        terms = {name: self.engine.mean(value) / since.steps for name, value in since.terms.items()}
        self._since = Since(self.engine.device)
        if self.engine.is_main:
            self.records.add(row, terms)
            if row[self.task.metric] > self.best_value:
                self.best_value = row[self.task.metric]
                save_model(delivered, self.out / "best.safetensors", info=self._notes())
            self.save()

    @property
    def delivered(self) -> AnyModel:
        """The model that validation measures and files hold: the running average when there is one."""
        return self.model if self.ema is None else cast(AnyModel, self.ema.module)

    def save(self) -> None:
        """Write the state of the run and the present weights."""
        if not self.engine.is_main:
            return
        save_model(self.delivered, self.out / "last.safetensors", info=self._notes())
        state = {
            "settings": flat_settings(self.recipe),
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": generator_state(self.engine.device),
            "rows": self.records.rows,
            "best_value": self.best_value,
            "since": self._since.state(),
        }
        save_state(self.out, state)
        self._last_save = time.monotonic()

    def _notes(self) -> dict[str, Any]:
        """What the weight files say about their run."""
        last = self.records.rows[-1] if self.records.rows else {}
        return {"recipe": self.recipe.name, "step": self.step, self.task.metric: last.get(self.task.metric)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `save` wrote, so that the next step is the one that would have followed."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best_value = state["step"], state["best_value"]
        self._since.restore(state["since"])
        self.records.rows = state["rows"]
        self.records.write_csv()
        set_generator_state(state["random"], self.engine.device)


def build_optimizer(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Return AdamW, or SGD with Nesterov momentum, over parameter groups; the schedule sets the rates."""
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)
    return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum, nesterov=True)
