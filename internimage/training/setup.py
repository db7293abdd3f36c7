"""From a recipe and a data set to what the loop runs: open data, suited settings, a model with its start weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import Generic

import torch
from torch import Tensor

from internimage import parallel, tasks
from internimage.data import ImageDataset
from internimage.recipe import Recipe
from internimage.recipe.schedules import Schedule
from internimage.recipe.task import AnyTraining, BatchT, DataT, ModelT, Progress, RecipeT, TrainingTask
from internimage.training.examples import check_examples, check_targets
from internimage.training.initial_weights import load_start_weights, log_start
from internimage.training.optim import ParamGroup, param_groups
from internimage.training.own_data import wants_own_part, with_batch, with_holdout, with_short_warmup, with_start

logger = logging.getLogger(__name__)
# Looks at the parts of a data set as they were opened, before anything is built on them; what it raises stops the run.
# Returns whether the run begins here: one that goes on has its weights and takes no start weights.
Examine = Callable[[Mapping[str, ImageDataset[object]]], bool]


class Setup(Generic[RecipeT, DataT, BatchT, ModelT]):
    """A model together with its data, as one recipe describes them.

    Args:
        recipe: every setting of the run.
        data: path of the data set.
        task: how the models of its task are trained; None finds it by the recipe.
        examine: called with the parts of the data set that the run uses, see `Examine`.

    Attributes:
        recipe: the settings of the run, suited to its data, see `internimage.training.own_data`.
        metric: column of the validation that decides which weights are the best; the higher the better.
        model: what is trained, with its start weights.
        schedule: lengths and learning rates.
        batches_per_epoch: batches that one pass over the training set gives to this process.
        batch_size: images of a batch.
        steps_per_epoch: optimizer steps of a pass over the training set.

    Raises:
        FileNotFoundError: the folder lacks a part of the data.
        ValueError: the data or the start weights do not fit the recipe.
        CheckpointMismatch: the start weights are of another architecture.
    """

    def __init__(
        self,
        recipe: RecipeT,
        data: str | PathLike[str],
        *,
        task: TrainingTask[RecipeT, DataT, BatchT, ModelT] | None = None,
        examine: Examine | None = None,
    ) -> None:
        self._task = task = task or training_of(recipe)
        task.check_batch(recipe)
        whole, own_val = task.open(recipe, data, test_stands_in=wants_own_part(recipe))
        recipe = self._suited(recipe, whole, has_val=own_val is not None)
        begins = examine is None or examine(used_parts(whole, own_val, recipe.data.holdout))
        train_set, self.val_set = task.divided(recipe, whole, own_val)
        place = getattr(whole, "name", str(data))
        if (count := task.examples(train_set)) is not None:
            check_examples(count, place=place, fewest_classes=task.fewest_classes)
        targets = task.targets(self.val_set)
        self._can_measure = targets is None or check_targets(targets, place=getattr(self.val_set, "name", str(data)))
        recipe = with_batch(recipe, len(train_set) // parallel.world())
        task.check_batch(recipe)
        train_set = task.read(recipe, train_set)
        if begins:
            log_start(recipe.model.source, whole.class_names)
        torch.manual_seed(recipe.run.seed)
        self.model = task.build(recipe, whole)
        if begins:
            load_start_weights(self.model, recipe.model, task)
        self._batches = task.batches(recipe, self.model, train_set)
        self.batches_per_epoch = self._batches.batches_per_epoch
        self.batch_size, self.steps_per_epoch = recipe.data.batch_size, self._steps_per_epoch(recipe)
        world = parallel.world()
        total = recipe.rates(self.steps_per_epoch, world=world).total_steps
        self.recipe = with_short_warmup(recipe, total_steps=total, steps_per_epoch=self.steps_per_epoch)
        self.schedule: Schedule = self.recipe.rates(self.steps_per_epoch, world=world)
        self.metric = task.metric(self.recipe, self.model, self.val_set)

    def _suited(self, recipe: RecipeT, data: DataT, *, has_val: bool) -> RecipeT:
        """Return the recipe with what the data decides, but for the batch."""
        names, images = data.class_names, len(data)
        recipe.model.check_classes(names)
        recipe = with_start(recipe, names, images)
        recipe = self._task.suited(recipe, data)
        return with_holdout(recipe, names, images, has_val=has_val)

    def _steps_per_epoch(self, recipe: RecipeT) -> int:
        batches, accumulation = self.batches_per_epoch, recipe.optimizer.accumulation_steps
        if batches < accumulation:
            raise ValueError(
                f"{batches} batches of {recipe.data.batch_size} images do not fill one step of {accumulation} batches; "
                "lower optimizer.accumulation_steps or data.batch_size"
            )
        return batches // accumulation

    def log_batch(self, batches: int) -> None:
        """Say how many images make a step, and at which rate it learns.

        Args:
            batches: of a step, on one process.
        """
        size, processes, total = self.batch_size, parallel.world(), self.schedule.total_steps
        parts = [f"{size} images", *([f"{batches} batches"] if batches > 1 else [])]
        parts += [f"{processes} processes"] if processes > 1 else []
        highest = max(self.schedule.lr(step) for step in range(0, total, max(1, total // 1000)))
        logger.info(
            "a step has %d images (%s); learning rates up to %.3g",
            size * batches * processes,
            " x ".join(parts),
            highest,
        )

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[BatchT]:
        """Yield the batches of zero-based `epoch` from index `start` on."""
        return self._batches.epoch(epoch, start=start)

    def loss(self, batch: BatchT, device: torch.device) -> dict[str, Tensor]:
        """Return the named scalar losses of a batch; their sum is what training minimizes."""
        return self._task.loss(self.recipe, self.model, batch, device)

    def param_groups(self) -> list[ParamGroup]:
        """Return the optimizer's groups."""
        depths = self.recipe.model.config.backbone.depths
        return param_groups(self.model, self.recipe.layer_rules(), depths=depths)

    def validate(self, model: ModelT, progress: Progress | None = None) -> dict[str, float]:
        """Measure a model on the validation images; NaN where they show nothing."""
        if not self._can_measure:
            return self._task.unmeasured(self.recipe, model, self.val_set)
        return self._task.validate(self.recipe, model, self.val_set, progress)


def training_of(recipe: Recipe) -> AnyTraining:
    """Return how the models of a recipe are trained.

    Raises:
        TypeError: its task cannot be trained.
    """
    module = tasks.station(recipe.task, "training.procedure")
    if module is None:
        raise TypeError(f"the task {recipe.task} has no folder training, so no recipe of it can be trained")
    return module.TRAINING


def used_parts(
    train_set: ImageDataset[object], own_val: ImageDataset[object] | None, holdout: int
) -> dict[str, ImageDataset[object]]:
    """Return the parts of a data set that a run uses, by name.

    Args:
        train_set: the training part, whole.
        own_val: the data set's own validation part, or None.
        holdout: training images to validate on instead of `own_val`.
    """
    parts = {"training": train_set}
    return parts if own_val is None or holdout else {**parts, "validation": own_val}
