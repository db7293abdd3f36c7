"""What training a detector and training a segmentor share: batches with broken images, schedule, groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

from internimage.data.dataset import Unreadable
from internimage.data.unreadable import UnreadableLimit
from internimage.detection import DINO, RCNN
from internimage.segmentation import Segmentor
from internimage.training.dense.param_groups import param_groups
from internimage.training.dense.schedule import IterationSchedule
from internimage.training.dense.settings import DenseRecipe
from internimage.training.own_data import with_short_warmup
from internimage.training.task import TrainingTask


class DenseBatch(Protocol):
    """A batch that tells which images could not be read."""

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """Images that others replaced."""
        ...


Batch = TypeVar("Batch", bound=DenseBatch)
BatchOut = TypeVar("BatchOut", bound=DenseBatch, covariant=True)
Model = TypeVar("Model", RCNN | DINO, Segmentor)


class DenseBatches(Protocol[BatchOut]):
    """The training set in batches."""

    batches_per_epoch: int

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[BatchOut]:
        """Yield the batches of an epoch."""
        ...


class DenseTask(TrainingTask[Batch, Model]):
    """A training task with the settings of a dense recipe; subclasses call `feed` when they are built."""

    def feed(self, recipe: DenseRecipe, batches: DenseBatches[Batch]) -> None:
        """Take the batches to learn from, and lay out the schedule for them."""
        self._optimizer, self._batches = recipe.optimizer, batches
        self._limit = UnreadableLimit(recipe.data.max_unreadable, in_training=True)
        self.batches_per_epoch, self.batch_size = batches.batches_per_epoch, recipe.data.batch_size
        steps = recipe.steps_per_epoch(self.batches_per_epoch)
        total = IterationSchedule(recipe.schedule, steps, recipe.optimizer.lr).total_steps
        self.recipe = suited = with_short_warmup(recipe, total_steps=total, steps_per_epoch=steps)
        self.schedule = IterationSchedule(suited.schedule, steps, recipe.optimizer.lr)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        for batch in self._batches.epoch(epoch, start=start):
            self._limit.report(batch.unreadable)
            yield batch

    def param_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups."""
        return param_groups(self.model, self._optimizer, depths=self.model.config.backbone.depths)
