"""The training loop: data, model, optimizer and records wired together; every number of a run is resumable."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch

from internimage.backbones import variant
from internimage.classification.model import Classifier, ClassifierConfig
from internimage.classification.preprocess import PreprocessConfig
from internimage.data import PictureDataset, hold_out, open_dataset
from internimage.evaluation import evaluate
from internimage.training.config import OptimizerSettings, Recipe
from internimage.training.console import progress_bar, stop_on_signals
from internimage.training.ema import build_ema
from internimage.training.engine import Engine
from internimage.training.loading import TrainBatch, train_batches
from internimage.training.param_groups import param_groups
from internimage.training.randomness import generator_state, set_generator_state
from internimage.training.recipes import recipe as find_recipe
from internimage.training.records import Records
from internimage.training.schedule import build_schedule
from internimage.training.start import load_start_weights
from internimage.training.state import (
    STATE_FILE,
    flat_settings,
    load_state,
    refuse_other_settings,
    save_recipe,
    save_state,
)
from internimage.types import Images
from internimage.zoo.weights import save_model

logger = logging.getLogger(__name__)
CHECK_EVERY = 50


@dataclass(frozen=True)
class TrainingResult:
    """What a run left behind.

    Args:
        best: weights with the highest validation top-1; None before the first epoch is complete.
        last: weights of the end.
        history: rows of metrics.csv.
        interrupted: the run was stopped by Ctrl-C or SIGTERM; it can be resumed.
    """

    best: Path | None
    last: Path | None
    history: list[dict[str, float]]
    interrupted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready summary."""
        return {
            "best": None if self.best is None else str(self.best),
            "last": None if self.last is None else str(self.last),
            "interrupted": self.interrupted,
            "best_val_top1": max((row["val_top1"] for row in self.history), default=None),
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
    """Train a classifier.

    Args:
        recipe: a recipe or the name of one.
        data: folder of the data set, see `internimage.data.open_dataset`.
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
        self.recipe, self.out, self.progress = recipe, out, progress
        self.engine = Engine(device, recipe.run)
        train_set, self.val_set = open_train_val(data, recipe.data.holdout)
        torch.manual_seed(recipe.run.seed)
        self.model = build_model(recipe, train_set.class_names)
        load_start_weights(self.model, recipe.model)
        self.model.to(self.engine.device)
        self.ema = build_ema(self.model, recipe.ema) if recipe.ema.decay else None
        depths = self.model.config.backbone.depths
        self.optimizer = build_optimizer(param_groups(self.model, recipe.optimizer, depths=depths), recipe.optimizer)
        self.batches = train_batches(
            train_set, recipe, self.model.config.preprocess, rank=self.engine.rank, world=self.engine.world
        )
        self.steps_per_epoch = self.batches.batches_per_epoch // recipe.optimizer.accumulation_steps
        self.schedule = build_schedule(
            recipe.schedule,
            recipe.optimizer,
            steps_per_epoch=self.steps_per_epoch,
            batch_size=recipe.data.batch_size,
            world=self.engine.world,
        )
        out.mkdir(parents=True, exist_ok=True)
        self.records = Records(out, recipe.run)
        self.step = 0
        self.best_top1 = -1.0
        self._epoch_loss = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        self._epoch_seconds = 0.0
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
        )

    def _train_epoch(self, stopped: Callable[[], bool], show: Callable[[int, str], None]) -> None:
        """Train the rest of the present epoch, then validate, unless the run is stopped."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        accumulation = self.recipe.optimizer.accumulation_steps
        self.model.train()
        started = time.monotonic()
        micro_batches = self.batches.epoch(epoch, start=done * accumulation)
        for _ in range(self.steps_per_epoch - done):
            self._train_step([next(micro_batches) for _ in range(accumulation)])
            show(self.step, f"{epoch + 1}/{self.recipe.schedule.epochs}")
            is_time = time.monotonic() - self._last_save > 60 * self.recipe.run.save_minutes
            if self.step % self.steps_per_epoch and (stopped() or is_time):
                self._epoch_seconds, started = self._epoch_seconds + time.monotonic() - started, time.monotonic()
                self.save()
                if stopped():
                    return
        self._epoch_seconds += time.monotonic() - started
        self._finish_epoch(epoch + 1)

    def _train_step(self, micro_batches: list[TrainBatch]) -> None:
        """One optimizer step over one or more batches."""
        self.schedule.apply(self.optimizer, self.step)
        for batch in micro_batches:
            images = to_images(batch.pixels).to(self.engine.device)
            targets = batch.targets.to(self.engine.device)
            smoothing = 0.0 if targets.is_floating_point() else self.recipe.label_smoothing
            with self.engine.autocast():
                losses = self.model.loss(images, targets, label_smoothing=smoothing)
                loss = sum(losses.values(), torch.zeros((), device=self.engine.device)) / len(micro_batches)
            self.engine.backward(loss)
            self._epoch_loss += loss.detach()
        self.engine.step(self.optimizer, self.model.parameters(), clip_norm=self.recipe.optimizer.clip_norm)
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.step += 1
        if self.step % CHECK_EVERY == 0 or self.step % self.steps_per_epoch == 0:
            self._refuse_nan()

    def _refuse_nan(self) -> None:
        """Stop a run that has diverged, before a state of it is saved."""
        if not math.isfinite(self.engine.mean(self._epoch_loss)):
            raise FloatingPointError(
                f"the loss is not finite at step {self.step}; lower optimizer.lr_per_512, or resume from the last "
                "state in the folder of the run"
            )

    def _finish_epoch(self, epoch: int) -> None:
        """Validate, write the row of the epoch, the weights and the state."""
        delivered = self.delivered
        settings = self.recipe.data
        report = evaluate(
            delivered,
            self.val_set,
            batch_size=settings.batch_size,
            workers=settings.workers,
            max_unreadable=settings.max_unreadable,
        )
        pictures = self.steps_per_epoch * self.recipe.optimizer.accumulation_steps * settings.batch_size
        row = {
            "epoch": epoch,
            "step": self.step,
            "lr": self.schedule.lr(self.step - 1),
            "train_loss": self.engine.mean(self._epoch_loss) / self.steps_per_epoch,
            "val_loss": report.loss,
            "val_top1": report.top1,
            "val_top5": report.top5,
            "images_per_second": pictures * self.engine.world / self._epoch_seconds,
            "seconds": self._epoch_seconds,
        }
        self._epoch_loss.zero_()
        self._epoch_seconds = 0.0
        logger.info("epoch %d: %s", epoch, ", ".join(f"{key} {value:.5g}" for key, value in row.items()))
        if self.engine.is_main:
            self.records.add(row)
            if report.top1 > self.best_top1:
                self.best_top1 = report.top1
                save_model(delivered, self.out / "best.safetensors", info=self._notes())
            self.save()

    @property
    def delivered(self) -> Classifier:
        """The model that validation measures and files hold: the running average when there is one."""
        return self.model if self.ema is None else cast(Classifier, self.ema.module)

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
            "best_top1": self.best_top1,
            "epoch_loss": self._epoch_loss,
            "epoch_seconds": self._epoch_seconds,
        }
        save_state(self.out, state)
        self._last_save = time.monotonic()

    def _notes(self) -> dict[str, Any]:
        """What the weight files say about their run."""
        last = self.records.rows[-1] if self.records.rows else {}
        return {"recipe": self.recipe.name, "step": self.step, "val_top1": last.get("val_top1")}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `save` wrote, so that the next step is the one that would have followed."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best_top1 = state["step"], state["best_top1"]
        self._epoch_loss.copy_(state["epoch_loss"])
        self._epoch_seconds = state["epoch_seconds"]
        self.records.rows = state["rows"]
        self.records.write_csv()
        set_generator_state(state["random"], self.engine.device)


def open_train_val(data: str | PathLike[str], holdout: int) -> tuple[PictureDataset[int], PictureDataset[int]]:
    """Open the training part and the validation part of a data set.

    Args:
        data: folder of the data set.
        holdout: training pictures to validate on; 0 takes the data set's own validation part.
    """
    train_set = open_dataset(data, "train")
    if holdout:
        return hold_out(train_set, holdout)
    return train_set, open_dataset(data, "val")


def build_model(recipe: Recipe, class_names: tuple[str, ...]) -> Classifier:
    """Return the fresh classifier of a recipe for these classes."""
    settings = recipe.model
    config = ClassifierConfig(
        replace(variant(settings.backbone), drop_path_rate=settings.drop_path_rate),
        num_classes=len(class_names),
        head=settings.head,
        preprocess=PreprocessConfig(size=recipe.data.size),
        class_names=class_names,
    )
    return Classifier(
        config,
        activation_checkpointing=settings.activation_checkpointing,
        frozen_stages=settings.frozen_stages,
        backend=settings.backend,
    )


def build_optimizer(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Return AdamW, or SGD with Nesterov momentum, over parameter groups."""
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr_per_512, betas=settings.betas, eps=settings.eps, fused=True)
    return torch.optim.SGD(groups, lr=settings.lr_per_512, momentum=settings.momentum, nesterov=True)


def to_images(pixels: torch.Tensor) -> Images:
    """Wrap (B, 3, S, S) training pixels, which have no padding."""
    sizes = torch.tensor(pixels.shape[-2:]).expand(len(pixels), 2)
    return Images(pixels, sizes, ((pixels.shape[-2], pixels.shape[-1]),) * len(pixels))
