"""What a run does with a model of this task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from os import PathLike

import numpy as np
import torch
from torch import Tensor, nn

from internimage.data import ImageDataset
from internimage.recipe.task import Progress, TrainingTask, hold_out_or_own
from internimage.types import Images
from tests.rotation.evaluate import evaluate_rotation, open_turned
from tests.rotation.model import TURNS, Rotation
from tests.rotation.training.recipe import RotationRecipe

Turned = ImageDataset[int]
Batch = tuple[Images, Tensor]


class RotationBatches:
    """The images in an order that follows from seed and epoch."""

    def __init__(self, recipe: RotationRecipe, model: Rotation, train_set: Turned) -> None:
        self.recipe, self.preprocess, self.train_set = recipe, model.preprocess, train_set
        self.batches_per_epoch = len(train_set) // recipe.data.batch_size

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        size = self.recipe.data.batch_size
        order = np.random.default_rng((self.recipe.run.seed, epoch)).permutation(len(self.train_set))
        for batch in range(start, self.batches_per_epoch):
            samples = [self.train_set[int(index)] for index in order[batch * size : (batch + 1) * size]]
            targets = torch.tensor([sample.target for sample in samples])
            yield self.preprocess([sample.image for sample in samples]), targets


class RotationTraining(TrainingTask[RotationRecipe, Turned, Batch, Rotation]):
    """How rotation finders are trained."""

    def open(
        self, recipe: RotationRecipe, data: str | PathLike[str], *, test_stands_in: bool
    ) -> tuple[Turned, Turned | None]:
        return open_turned(data), None

    def divided(self, recipe: RotationRecipe, train_set: Turned, own_val: Turned | None) -> tuple[Turned, Turned]:
        return hold_out_or_own(train_set, own_val, recipe.data.holdout)

    def examples(self, train_set: Turned) -> None:
        """Count nothing: a turn is made, not found."""

    def build(self, recipe: RotationRecipe, data: Turned) -> Rotation:
        return Rotation(replace(recipe.model.config, num_classes=len(TURNS), class_names=TURNS))

    def start_state(self, model: Rotation, given: nn.Module, *, source: str, reset_head: bool) -> Mapping[str, Tensor]:
        return given.state_dict()

    def batches(self, recipe: RotationRecipe, model: Rotation, train_set: Turned) -> RotationBatches:
        return RotationBatches(recipe, model, train_set)

    def example_batch(self, recipe: RotationRecipe, model: Rotation, images: int, *, scale: float = 1.0) -> Batch:
        side = round(32 * scale)
        batch = Images(
            torch.randn(images, 3, side, side), torch.tensor([[side, side]] * images), ((side, side),) * images
        )
        return batch, torch.arange(images) % len(TURNS)

    def loss(self, recipe: RotationRecipe, model: Rotation, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        images, targets = batch
        return model.loss(images.to(device), targets.to(device))

    def metric(self, recipe: RotationRecipe, model: Rotation, val_set: Turned) -> str:
        return "val_accuracy"

    def validate(
        self, recipe: RotationRecipe, model: Rotation, val_set: Turned, progress: Progress | None = None
    ) -> dict[str, float]:
        return {"val_accuracy": evaluate_rotation(model, val_set).accuracy}


TRAINING = RotationTraining()
