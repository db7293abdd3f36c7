"""What the training loop asks of a task: a model, batches, losses, a validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from internimage.data import ImageDataset
from internimage.flow import TaskModel
from internimage.training.schedule import Schedule

Batch = TypeVar("Batch")
Model = TypeVar("Model", bound=TaskModel[Any])


# Looks at the parts of a data set as they were opened, before anything is built on them; what it raises stops the run.
# Returns whether the run begins here: one that goes on has its weights and takes no start weights.
Examine = Callable[[Mapping[str, ImageDataset[Any]]], bool]


def used_parts(
    train_set: ImageDataset[Any], own_val: ImageDataset[Any] | None, holdout: int
) -> dict[str, ImageDataset[Any]]:
    """Return the parts of a data set that a run uses, by name.

    Args:
        train_set: the training part, whole.
        own_val: the data set's own validation part, or None.
        holdout: training images to validate on instead of `own_val`.
    """
    parts = {"training": train_set}
    return parts if own_val is None or holdout else {**parts, "validation": own_val}


class TrainingTask(ABC, Generic[Batch, Model]):
    """A model together with its data, as one recipe describes them.

    Attributes:
        recipe: the settings of the run, suited to its data, see `internimage.training.own_data`.
        metric: column of the validation that decides which weights are the best; the higher the better.
        model: what is trained, with its start weights.
        schedule: lengths and learning rates.
        batches_per_epoch: batches that one pass over the training set gives to this process.
        batch_size: images of a batch.
    """

    recipe: Any  # a Recipe; each task declares its own kind
    metric: str
    model: Model
    schedule: Schedule
    batches_per_epoch: int
    batch_size: int

    @abstractmethod
    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of zero-based `epoch` from number `start` on; they follow from seed, epoch and number."""

    @abstractmethod
    def loss(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Return the named scalar losses of a batch; their sum is what training minimizes."""

    @abstractmethod
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups, see `internimage.training.param_groups.grouped`."""

    @abstractmethod
    def validate(self, model: Model, progress: Callable[[int, int], None] | None = None) -> dict[str, float]:
        """Measure a model on the validation set: names that start with `val_`, among them `metric`.

        Args:
            model: what is measured.
            progress: called with (images done, images in all) after each batch.
        """
