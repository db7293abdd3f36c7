"""Training a classifier: its data, model, losses and validation.

Shape legend: B images of a batch, S side in pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from internimage.backbones import variant
from internimage.classification.evaluate import evaluate_classification
from internimage.classification.model import Classifier, ClassifierConfig
from internimage.classification.preprocess import PreprocessConfig
from internimage.data import FashionMNIST, ImageDataset, ImageFolder, open_dataset, read_as
from internimage.data.examples import count_images
from internimage.data.images.normalize import for_channels
from internimage.data.listing import list_folders
from internimage.data.parts import PARTS, part_folders
from internimage.data.readers.fashion_mnist import is_fashion_mnist
from internimage.training.classification.batches import TrainBatch, train_batches
from internimage.training.classification.config import ClassificationRecipe
from internimage.training.classification.param_groups import param_groups
from internimage.training.classification.schedule import build_schedule
from internimage.training.classification.start import load_start_weights
from internimage.training.examples import check_examples
from internimage.training.own_data import (
    divided,
    wants_own_part,
    with_batch,
    with_holdout,
    with_short_warmup,
    with_start,
)
from internimage.training.start import log_start
from internimage.training.task import Examine, TrainingTask, used_parts
from internimage.types import Images


class ClassificationTask(TrainingTask[TrainBatch, Classifier]):
    """A classifier and the images it learns from.

    Args:
        recipe: every setting of the run.
        data: folder of the data set, see `internimage.data.open_dataset`.
        rank: number of this process among those that train together.
        world: their count.
        examine: called with the parts of the data set that the run uses, see `internimage.training.task.Examine`.
    """

    metric = "val_top1"
    recipe: ClassificationRecipe

    def __init__(
        self,
        recipe: ClassificationRecipe,
        data: str | PathLike[str],
        *,
        rank: int = 0,
        world: int = 1,
        examine: Examine | None = None,
    ) -> None:
        train_set, own_val = open_parts(data, recipe.data.val_split, test_stands_in=wants_own_part(recipe))
        names = train_set.class_names
        recipe = with_start(recipe, names, len(train_set))
        recipe = with_holdout(recipe, names, len(train_set), has_val=own_val is not None)
        begins = examine is None or examine(used_parts(train_set, own_val, recipe.data.holdout))
        train_set, self.val_set = divided(train_set, own_val, recipe.data.holdout)
        if (count := count_images(train_set)) is not None:
            check_examples(count, place=str(data), fewest_classes=2)
        recipe = with_batch(recipe, len(train_set) // world)
        train_set = read_as(train_set, preprocess_of(recipe).reading)
        if begins:
            log_start(recipe.model, names)
        torch.manual_seed(recipe.run.seed)
        self.model = build_model(recipe, names)
        if begins:
            load_start_weights(self.model, recipe.model)
        self._batches = train_batches(train_set, recipe, self.model.config.preprocess, rank=rank, world=world)
        self.batches_per_epoch, self.batch_size = self._batches.batches_per_epoch, recipe.data.batch_size
        steps = self.batches_per_epoch // recipe.optimizer.accumulation_steps
        self.recipe = with_short_warmup(recipe, total_steps=recipe.schedule.epochs * steps, steps_per_epoch=steps)
        self.schedule = build_schedule(
            self.recipe.schedule, recipe.optimizer, steps_per_epoch=steps, batch_size=self.batch_size, world=world
        )

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[TrainBatch]:
        """Yield the batches of an epoch."""
        return self._batches.epoch(epoch, start=start)

    def loss(self, batch: TrainBatch, device: torch.device) -> dict[str, Tensor]:
        """Return the cross entropy of a batch."""
        images, targets = to_images(batch.pixels).to(device), batch.targets.to(device)
        smoothing = 0.0 if targets.is_floating_point() else self.recipe.label_smoothing
        return self.model.loss(images, targets, label_smoothing=smoothing)

    def param_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups."""
        return param_groups(self.model, self.recipe.optimizer, depths=self.model.config.backbone.depths)

    def validate(self, model: Classifier, progress: Callable[[int, int], None] | None = None) -> dict[str, float]:
        """Return loss, top-1 and top-5 on the validation images."""
        settings = self.recipe.data
        report = evaluate_classification(
            model,
            self.val_set,
            batch_size=settings.batch_size,
            workers=settings.workers,
            max_unreadable=settings.max_unreadable,
            progress=progress,
        )
        return {"val_loss": report.loss, "val_top1": report.top1, "val_top5": report.top5}


def open_parts(
    data: str | PathLike[str], val_split: Literal["val", "test"] | None, *, test_stands_in: bool = False
) -> tuple[ImageDataset[int], ImageDataset[int] | None]:
    """Open the training part of a data set, and its own validation part or None.

    Args:
        data: folder of the data set; one with class folders alone is all for training.
        val_split: part to validate on; None for "val" if there is one.
        test_stands_in: validate on the test part where there is no other one.
    """
    if _holds_classes_alone(Path(data)):
        return ImageFolder(data), None
    train_set = open_dataset(data, "train")
    if val_split is not None:
        return train_set, open_dataset(data, val_split)
    if isinstance(train_set, FashionMNIST) and not test_stands_in:
        return train_set, None
    try:
        return train_set, open_dataset(data, "val", test_stands_in=test_stands_in)
    except FileNotFoundError:
        return train_set, None


def _holds_classes_alone(root: Path) -> bool:
    """Whether a folder holds one folder for each class and no parts."""
    if not root.is_dir() or is_fashion_mnist(root) or any(part_folders(root, part) for part in PARTS):
        return False
    folders = list_folders(root)
    is_parted = any(part_folders(folder, part) for folder in folders for part in PARTS)
    return len(folders) > 1 and not is_parted


def preprocess_of(recipe: ClassificationRecipe) -> PreprocessConfig:
    """Return how the model of a recipe reads images.

    Raises:
        ValueError: the statistics or the range make no sense, or are those of another number of channels.
    """
    data = recipe.data
    config = for_channels(PreprocessConfig(size=data.size, value_range=data.value_range), recipe.model.in_chans)
    return replace(config, mean=data.mean or config.mean, std=data.std or config.std)


def build_model(recipe: ClassificationRecipe, class_names: tuple[str, ...]) -> Classifier:
    """Return the fresh classifier of a recipe for these classes."""
    settings = recipe.model
    backbone = replace(variant(settings.backbone), in_chans=settings.in_chans, drop_path_rate=settings.drop_path_rate)
    config = ClassifierConfig(
        backbone,
        num_classes=len(class_names),
        head=settings.head,
        preprocess=preprocess_of(recipe),
        class_names=class_names,
    )
    return Classifier(
        config,
        activation_checkpointing=settings.activation_checkpointing,
        frozen_stages=settings.frozen_stages,
        backend=settings.backend,
    )


def to_images(pixels: Tensor) -> Images:
    """Wrap (B, C, S, S) training pixels, which have no padding."""
    sizes = torch.tensor(pixels.shape[-2:]).expand(len(pixels), 2)
    return Images(pixels, sizes, ((pixels.shape[-2], pixels.shape[-1]),) * len(pixels))
