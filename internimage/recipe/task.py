"""What a task says about training: its data, batches, losses and validation; the loop in `training/` does the rest."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from internimage.data import ImageDataset, Unreadable, hold_out
from internimage.data.examples import ExampleCount
from internimage.data.unreadable import UnreadableLimit
from internimage.recipe.recipe import Recipe

RecipeT = TypeVar("RecipeT", bound=Recipe)
DataT = TypeVar("DataT", bound=ImageDataset[Any])
ModelT = TypeVar("ModelT", bound=nn.Module)
BatchT = TypeVar("BatchT")
Target = TypeVar("Target")
BatchOut = TypeVar("BatchOut", covariant=True)
Progress = Callable[[int, int], None]


class Batches(Protocol[BatchOut]):
    """The training set in batches."""

    batches_per_epoch: int

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[BatchOut]:
        """Yield the batches of zero-based `epoch` from index `start` on; they follow from seed, epoch and index."""
        ...


class TrainingTask(ABC, Generic[RecipeT, DataT, BatchT, ModelT]):
    """How the models of a task are trained; holds no state.

    Attributes:
        fewest_classes: classes that must have examples, 2 where a class is learned only against others.
        may_skip_parameters: whether a batch may leave some parameters without a gradient, such as one without objects.
    """

    fewest_classes: int = 2
    may_skip_parameters: bool = True

    @abstractmethod
    def open(self, recipe: RecipeT, data: str | PathLike[str], *, test_stands_in: bool) -> tuple[DataT, DataT | None]:
        """Open the training part of a data set, and its own validation part or None.

        Args:
            recipe: classes and parts.
            data: path of the data set.
            test_stands_in: validate on the test part where there is no other one.

        Raises:
            FileNotFoundError: the folder lacks a part of the data.
        """

    def suited(self, recipe: RecipeT, train_set: DataT) -> RecipeT:
        """Return the recipe suited to what the training images show.

        Raises:
            ValueError: the user has chosen otherwise.
        """
        return recipe

    def check_batch(self, recipe: RecipeT) -> None:
        """Raise ValueError for batches that the model cannot be trained on."""

    @abstractmethod
    def divided(self, recipe: RecipeT, train_set: DataT, own_val: DataT | None) -> tuple[DataT, DataT]:
        """Return what is trained and what is validated on.

        Raises:
            FileNotFoundError: there is neither a validation part nor a holdout.
        """

    @abstractmethod
    def examples(self, train_set: DataT) -> ExampleCount | None:
        """Count what there is to learn; None where it would take too long."""

    def targets(self, val_set: DataT) -> ExampleCount | None:
        """Count what there is to be found in the validation part; None where every image counts."""
        return None

    def read(self, recipe: RecipeT, train_set: DataT) -> DataT:
        """Return the training images as the model reads them: channels and range of values."""
        return train_set

    @abstractmethod
    def build(self, recipe: RecipeT, data: DataT) -> ModelT:
        """Return the fresh model for the classes of the data."""

    @abstractmethod
    def start_state(self, model: ModelT, given: nn.Module, *, source: str, reset_head: bool) -> Mapping[str, Tensor]:
        """Return the start weights of a fresh model by name; whoever calls compares them with what the model has.

        Args:
            model: the fresh model.
            given: the model that the weights come from, a whole one or a backbone.
            source: what messages call it.
            reset_head: start the layers with a row for each class afresh.

        Raises:
            ValueError: the classes have no names, differ in number, and no new last layers were asked for, or the
                weights are of another task.
        """

    @abstractmethod
    def batches(self, recipe: RecipeT, model: ModelT, train_set: DataT) -> Batches[BatchT]:
        """Return the batches of this process, which are parts of whole batches, see `internimage.parallel`.

        Args:
            recipe: how images are varied, and how many make a batch.
            model: how it reads images.
            train_set: what is trained on.
        """

    @abstractmethod
    def example_batch(self, recipe: RecipeT, model: ModelT, images: int, *, scale: float = 1.0) -> BatchT:
        """Return a made-up batch of the largest images that a run may have, to count memory or time with.

        Args:
            recipe: sizes of the images.
            model: its classes.
            images: of the batch.
            scale: factor on their sides.
        """

    @abstractmethod
    def loss(self, recipe: RecipeT, model: ModelT, batch: BatchT, device: torch.device) -> dict[str, Tensor]:
        """Return the named scalar losses of a batch; their sum is what training minimizes."""

    @abstractmethod
    def metric(self, recipe: RecipeT, model: ModelT, val_set: DataT) -> str:
        """Return the column of `validate` that decides which weights are the best; the higher the better."""

    @abstractmethod
    def validate(
        self, recipe: RecipeT, model: ModelT, val_set: DataT, progress: Progress | None = None
    ) -> dict[str, float]:
        """Measure a model on the validation images: names that start with `val_`, among them `metric`.

        Args:
            recipe: batches of validation.
            model: what is measured.
            val_set: what is validated on.
            progress: called with (images done, images in all) after each batch.
        """

    def unmeasured(self, recipe: RecipeT, model: ModelT, val_set: DataT) -> dict[str, float]:
        """Return what `validate` returns where the validation images show nothing: NaN for each column."""
        return {self.metric(recipe, model, val_set): math.nan}

    def start_hint(self, missing: Sequence[str]) -> str:
        """Return what to do about start weights that do not fit.

        Args:
            missing: names that they lack.
        """
        return "model.architecture, model.backbone and model.weights of the recipe must belong together."


# Of whatever task; `Any` for the reason of `flow.task.AnyTask`.
AnyTraining = TrainingTask[Any, Any, Any, Any]


class UnreadableBatch(Protocol):
    """A batch that tells which images could not be read."""

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """Images that others replaced."""
        ...


LimitedT = TypeVar("LimitedT", bound=UnreadableBatch)


class LimitedBatches(Generic[LimitedT]):
    """Batches whose unreadable images are logged and counted; more than `most` of them stop the run.

    Args:
        batches: the training set in batches.
        most: images.
    """

    def __init__(self, batches: Batches[LimitedT], most: int) -> None:
        self._batches, self._limit = batches, UnreadableLimit(most, in_training=True)
        self.batches_per_epoch = batches.batches_per_epoch

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[LimitedT]:
        """Yield the batches of an epoch."""
        for batch in self._batches.epoch(epoch, start=start):
            self._limit.report(batch.unreadable)
            yield batch


def hold_out_or_own(
    train_set: ImageDataset[Target], own_val: ImageDataset[Target] | None, holdout: int
) -> tuple[ImageDataset[Target], ImageDataset[Target]]:
    """Return what is trained and what is validated on.

    Args:
        train_set: the training part.
        own_val: the data set's own validation part, or None.
        holdout: training images to validate on; 0 takes the validation part.

    Raises:
        FileNotFoundError: there is neither a validation part nor a holdout.
    """
    if holdout:
        return hold_out(train_set, holdout)
    if own_val is None:
        raise FileNotFoundError(
            "the data has no validation part (data.val_split); leave data.holdout out, or set it to the number of "
            "training images to validate on"
        )
    return train_set, own_val
