"""The training loop: a task, an optimizer and records wired together; every number of a run is resumable."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from internimage import parallel
from internimage.checkpoints.pieces import DamagedFile
from internimage.checkpoints.run_folder import saved_states
from internimage.checkpoints.save import save_model
from internimage.files import finite_or_none
from internimage.flow import AnyModel
from internimage.launch import launched_processes
from internimage.recipe import Recipe
from internimage.training.device import Losses, chosen_device, compile_backbone, with_precision
from internimage.training.display import RunDisplay, StopEvent, run_display, stop_on_signals
from internimage.training.meters import BusyHint, Meters, MeterSums, diverged, first_not_finite
from internimage.training.optim import build_optimizer, set_rates
from internimage.training.parallel.launch import build_engine, one_of_the_processes
from internimage.training.recipes import recipe as find_recipe
from internimage.training.records import Records, TrainingResult
from internimage.training.records.environment import note_start
from internimage.training.records.log_file import run_log
from internimage.training.records.steps import StepTracking
from internimage.training.resuming import resumed_recipe, shared_anew
from internimage.training.run_data import RunData
from internimage.training.setup import Setup
from internimage.training.state import (
    BEST_WEIGHTS,
    FORMAT,
    LAST_WEIGHTS,
    LOCK_FILE,
    RunPosition,
    SavedStates,
    flat_settings,
    generator_state,
    remove_unfinished,
    save_recipe,
    save_state,
    set_generator_state,
)

logger = logging.getLogger(__name__)
CHECK_EVERY = 50


def train(
    recipe: Recipe | str | None = None,
    *,
    data: str | PathLike[str] | None = None,
    out: str | PathLike[str],
    resume: bool = False,
    overrides: Sequence[str] = (),
    device: torch.device | str | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train a classifier, a detector or a segmentor.

    Args:
        recipe: a recipe, the name of one, or a YAML file that holds one (`internimage recipe NAME` prints one); a run
            that goes on has its own and needs none.
        data: folder of the data set, in a layout that the task of the recipe reads; a run that goes on knows it.
        out: folder of the run, whose README.txt names its files. One run at a time may work in it.
        resume: go on with the run in `out`, with its settings; on the CPU the result equals that of an uninterrupted
            run bit for bit.
        overrides: "section.key=value" texts, see `Recipe.with_overrides`. A run that goes on takes those that leave
            its numbers alone, and a longer `schedule.epochs` or `schedule.iterations`.
        device: where to train; None takes the accelerator when there is one.
        progress: show a progress bar on stderr.

    Returns:
        Where the weights are and how the run went.

    Raises:
        UnknownName: no such recipe or setting.
        ValueError: a setting, the data or the state to resume does not fit.
        FileExistsError: `out` holds a run and `resume` is false.
        FileNotFoundError: the data set, or the state to resume, does not exist.
        BlockingIOError: another process works in `out`.
        FloatingPointError: the run has diverged; the last good state stays.
        MissingExtra: the recipe needs the extra `train`.
    """
    folder = Path(out)
    if not resume and (recipe is None or data is None):
        raise ValueError("a new run needs a recipe and data; only a run that goes on (resume) knows its own")
    with one_of_the_processes(folder / LOCK_FILE) as is_first, run_log(folder, progress=progress, is_first=is_first):
        if is_first:
            remove_unfinished(folder)
        states = SavedStates(folder) if resume else None
        state = None if states is None else states.newest()
        if state is None:
            if saved_states(folder):
                raise FileExistsError(f"{folder} holds a run already; resume it or choose another folder")
            assert recipe is not None and data is not None
            chosen = (find_recipe(recipe) if isinstance(recipe, str) else recipe).with_overrides(overrides)
        else:
            settings = shared_anew(state["settings"], before=state.get("processes", 1), now=launched_processes())
            chosen = resumed_recipe(settings, recipe, overrides, task=state.get("task"))
            data = state.get("data_path") if data is None else data
            if data is None:
                raise ValueError(f"{folder} does not say where its data is; give the folder of the data set")
        run_data = RunData(folder, state)
        trainer = Trainer(chosen, data=data, out=folder, device=device, progress=progress, run_data=run_data)
        if states is not None:
            trainer.restore(states)
            state = states = None  # its tensors would stay for the whole run
        return trainer.run()


class _Asked(NamedTuple):
    """What one of the processes asks for between two steps."""

    stops: bool
    saves: bool


class Trainer:
    """A run: `Trainer(...)` builds everything, `restore` takes over a saved state, `run` trains.

    Args:
        recipe: every setting of the run.
        data: folder of the data set.
        out: folder of the run; created when it does not exist.
        device: where to train; None takes the accelerator when there is one.
        progress: show a progress bar on stderr.
        run_data: what is known of the data of a run that goes on; None for a new run.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        data: str | PathLike[str],
        out: Path,
        device: torch.device | str | None = None,
        progress: bool = True,
        run_data: RunData | None = None,
    ) -> None:
        self.out, self.progress = out, progress
        self._data_path = str(Path(data).absolute())
        recipe = with_precision(recipe, place := chosen_device(device))
        self.engine = build_engine(place, recipe)
        logger.info("reads the data in %s", data)
        self._run_data = run_data or RunData(out)
        self.task: Setup[Any, Any, Any, Any] = Setup(recipe, data, examine=self._run_data.examine)
        self.recipe = recipe = self.task.recipe
        self.model = self.engine.adapt(self.task.model)
        compile_backbone(self.model, recipe, self.engine.device)
        losses = Losses(self.model, lambda batch: self.task.loss(batch, self.engine.device), self.engine.autocast)
        self.engine.shard(losses)
        self.ema = self.engine.average(self.model, recipe.ema) if recipe.ema.decay else None
        optimizer = build_optimizer(self.task.param_groups(), recipe.optimizer)
        self._losses, self.optimizer = self.engine.prepare(losses, optimizer)
        self.schedule = self.task.schedule
        self.steps_per_epoch = self.task.steps_per_epoch
        out.mkdir(parents=True, exist_ok=True)
        self.records = Records(out, recipe.run, flat_settings(recipe))
        self._tracking = StepTracking(self.records, self.engine, self.optimizer, batch_size=recipe.data.batch_size)
        self.step = 0
        self.best_value = -math.inf
        self._saved_step: int | None = None
        self._meters, self._busy = Meters(self.engine.device), BusyHint(self.engine.device)
        self._last_save = time.monotonic()

    def run(self) -> TrainingResult:
        """Train to the end, or until Ctrl-C or SIGTERM, which save the state first."""
        try:
            return self._run()
        finally:
            self.records.close()

    def _run(self) -> TrainingResult:
        if parallel.rank() == 0:
            save_recipe(self.out, self.recipe)
            self._run_data.save()
            note_start(self.out, self.engine.device, step=self.step)
        self.records.start(self.step + 1)
        self.task.log_batch(self.engine.batches_per_step)
        if self.step == 0:
            self.save()
        total, shown = self.schedule.total_steps, self.progress and parallel.rank() == 0
        with stop_on_signals() as stop, run_display(total, completed=self.step, shown=shown) as display:
            is_stopped = self._asked(stop).stops
            while self.step < total and not is_stopped:
                is_stopped = self._train_epoch(stop, display)
        self.save()
        best, last = self.out / BEST_WEIGHTS, self.out / LAST_WEIGHTS
        return TrainingResult(
            best if best.exists() else None,
            last if last.exists() else None,
            self.records.rows,
            interrupted=self.step < total,
            metric=self.task.metric,
            stopped_by=stop.signal,
        )

    def _asked(self, stop: StopEvent) -> _Asked:
        """Return what one of the processes asks for; all of them get the same."""
        is_late = time.monotonic() - self._last_save > 60 * self.recipe.run.save_minutes
        own = (int(stop.is_set()), stop.signal or 0, int(is_late and parallel.rank() == 0))
        stops, signal, saves = parallel.largest(own)
        if stops and not stop.is_set():
            stop.signal = signal or None
            stop.set()
        return _Asked(bool(stops), bool(saves))

    def _train_epoch(self, stop: StopEvent, display: RunDisplay) -> bool:
        """Train the rest of the present epoch, validating where it is due; return whether the run is stopped."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        accumulation = self.recipe.optimizer.accumulation_steps
        micro_batches = self.task.epoch(epoch, start=done * accumulation)
        steps = min(self.steps_per_epoch - done, self.schedule.total_steps - self.step)
        self.model.train()
        for _ in range(steps):
            with self._meters.timed(), self._busy.timed():
                norm = self._train_step([next(micro_batches) for _ in range(accumulation)])
            self._tracking.step(self.step, epoch + 1, self._meters, gradient_norm=norm)
            of = math.ceil(self.schedule.total_steps / self.steps_per_epoch)
            display.step(self.step, f"{epoch + 1}/{of}", self._own_loss, self.schedule.lr(self.step - 1))
            if self.step % self.schedule.validate_every == 0 or self.step == self.schedule.total_steps:
                self._validate(epoch + 1, display)
                self.model.train()
                asked = self._asked(stop)
            elif (asked := self._asked(stop)).stops or asked.saves:
                self.save()
                logger.info("saved at step %d of %d, loss %.5g", self.step, self.schedule.total_steps, self._own_loss())
            if asked.stops:
                return True
        return False

    def _own_loss(self) -> float:
        """Return the mean loss of this process in the steps since the last validation."""
        return float(self._meters.loss) / self._meters.steps

    def _train_step(self, micro_batches: list[object]) -> Tensor | None:
        """One optimizer step over one or more batches; returns the norm of its gradients where it is limited."""
        set_rates(self.optimizer, self.schedule, self.step)
        for batch in micro_batches:
            with self.engine.accumulating(self._losses):
                losses = self._losses(batch)
                loss = sum(losses.values(), torch.zeros((), device=self.engine.device))
                self.engine.backward(loss)
                self._meters.add(loss / len(micro_batches), losses, fraction=1 / len(micro_batches), step=self.step + 1)
        norm = self.engine.step(self.optimizer, self.model.parameters(), clip_norm=self.recipe.optimizer.clip_norm)
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.step += 1
        self._meters.steps += 1
        if self.engine.device.type == "cpu" or self.step % CHECK_EVERY == 0:  # an accelerator would have to wait
            self._refuse_bad_loss()
        return norm

    def _refuse_bad_loss(self) -> None:
        """Stop a run whose loss is not finite.

        Raises:
            FloatingPointError: it is so since some step.
        """
        own = int(self._meters.first_bad)
        bad, process = parallel.largest((own, -1 if own < 0 else parallel.rank()))
        if bad >= 0:
            where = f" (process {process} of {parallel.world()})" if parallel.world() > 1 else ""
            raise self._diverged(f"the loss is not finite{where}", bad)

    def _refuse_bad_state(self) -> None:
        """Stop a run that has diverged, before its state replaces a good one.

        Raises:
            FloatingPointError: a loss, a weight or a moment of the optimizer is not finite.
        """
        self._refuse_bad_loss()
        own = self.engine.own_states(self.model, self.ema, self.optimizer)
        found = first_not_finite(
            {"model": own["model"], "optimizer": own["optimizer"]["state"], "average": own["ema"] or {}}
        )
        bad = next((name for name in parallel.gathered(found) if name is not None), None)
        if bad is not None:
            raise self._diverged(f"the state of the run is not finite ({bad})", self.step)

    def _diverged(self, what: str, step: int) -> FloatingPointError:
        """Return the error that says what is not finite, and which state is kept."""
        kept = f"{self.out} keeps the state of step {self._saved_step}"
        return diverged(
            what,
            step=step,
            total=self.schedule.total_steps,
            lr=self.schedule.lr(max(step - 1, 0)),
            precision=self.engine.precision,
            kept=f"{self.out} holds no state of it" if self._saved_step is None else kept,
        )

    def _validate(self, epoch: int, display: RunDisplay) -> None:
        """Measure the model, write the row, the weights and the state."""
        self._refuse_bad_state()
        meters = self._meters
        with display.validation() as progress:
            measured = self.task.validate(self.delivered, progress)
        images = meters.steps * self.recipe.optimizer.accumulation_steps * self.task.batch_size
        row = {
            "epoch": epoch,
            "step": self.step,
            "lr": self.schedule.lr(self.step - 1),
            "train_loss": parallel.mean(self._own_loss()),
            **measured,
            "images_per_second": images * parallel.world() / meters.seconds,
            "seconds": meters.seconds,
        }
        logger.info("epoch %d: %s", epoch, ", ".join(f"{key} {value:.5g}" for key, value in row.items()))
        terms = {name: parallel.mean(float(value) / meters.steps) for name, value in meters.terms.items()}
        self._meters = Meters(self.engine.device)
        self.records.add(row, terms)
        if row[self.task.metric] > self.best_value:
            self.best_value = row[self.task.metric]
            self._write_weights(BEST_WEIGHTS)
        self.save()
        display.saved(f"loss {row['train_loss']:.4g}, {self.task.metric} {row[self.task.metric]:.2%}")

    @property
    def delivered(self) -> AnyModel:
        """The model that validation measures: the running average when there is one."""
        return self.engine.delivered(self.model, self.ema)

    def save(self) -> None:
        """Write the state of the run and the present weights.

        Raises:
            FloatingPointError: they are not finite; what was saved before stays.
            OSError: a process cannot write its part; what was saved before stays.
        """
        self._refuse_bad_state()
        sums = parallel.gathered(self._meters.state())
        self._write_weights(LAST_WEIGHTS)
        states = self.engine.own_states if parallel.world() == 1 else self.engine.pieces
        held = states(self.model, self.ema, self.optimizer)
        save_state(self.out, self._position(sums), held, keep=self.recipe.run.keep_states)
        self._last_save, self._saved_step = time.monotonic(), self.step

    def _write_weights(self, name: str) -> None:
        """Write a file of weights; the first process does, all of them call this."""
        model = self.engine.written(self.model, self.ema)

        def write() -> None:
            if parallel.rank() == 0:
                save_model(model, self.out / name, info=self._notes())

        parallel.each_does(write, may_fail=OSError)

    def _position(self, sums: Sequence[MeterSums]) -> RunPosition:
        """Return where the run stands; `sums` are what the meters of each process have added up."""
        return {
            "format": FORMAT,
            "task": self.recipe.task,
            "settings": flat_settings(self.recipe),
            "data_path": self._data_path,
            "data": self._run_data.digests,
            "step": self.step,
            "random": generator_state(self.engine.device),
            "rows": self.records.rows,
            "best_value": self.best_value,
            "since": sums[0],
            "processes": parallel.world(),
            "since_of_others": list(sums[1:]),
            "scaler": self.engine.scaler.state_dict(),
        }

    def _notes(self) -> dict[str, object]:
        """What the weight files say about their run."""
        last = self.records.rows[-1] if self.records.rows else {}
        notes = {"recipe": self.recipe.name, "step": self.step, self.task.metric: last.get(self.task.metric)}
        return finite_or_none(notes)

    def restore(self, states: SavedStates) -> None:
        """Take over what `save` wrote, so that the next step is the one that would have followed."""
        state = states.newest()
        try:
            parallel.each_does(
                lambda: self.engine.restore(self.model, self.ema, self.optimizer, state), may_fail=DamagedFile
            )
        except DamagedFile as error:
            states.give_up(error)
            return self.restore(states)
        self.step, self.best_value = state["step"], state["best_value"]
        self._saved_step = self.step
        self.engine.scaler.load_state_dict(state.get("scaler", {}))
        self._meters.restore([state["since"], *state.get("since_of_others", [])])
        self.records.rows = state["rows"]
        self.records.write_csv()
        set_generator_state(state["random"], self.engine.device)
