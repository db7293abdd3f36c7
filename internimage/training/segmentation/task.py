"""Training a segmentor: its data, model, losses and validation.

Shape legend: N images of a batch, H W size of the batch, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from internimage.data import read_as
from internimage.data.class_list import class_list_setting
from internimage.data.images.raster import Reading
from internimage.data.label_maps.census import count_pixels
from internimage.data.label_maps.dataset import SegmentationDataset
from internimage.data.label_maps.open import open_segmentation_dataset
from internimage.segmentation import HEADS, Mask2FormerConfig, Segmentor, SegmentorConfig
from internimage.segmentation.batches.batches import SegmentationBatch, SegmentationBatches
from internimage.segmentation.evaluate import evaluate_segmentation
from internimage.training.dense.start import backbone_of, check_classes, load_start_weights
from internimage.training.dense.task import DenseTask
from internimage.training.examples import check_examples, check_truth
from internimage.training.own_data import divided, wants_own_part, with_batch, with_holdout, with_start
from internimage.training.segmentation.config import SegmentationDataSettings, SegmentationRecipe
from internimage.training.start import log_start
from internimage.training.task import Examine, used_parts
from internimage.types import Palette


class SegmentationTask(DenseTask[SegmentationBatch, Segmentor]):
    """A segmentor and the images it learns from.

    Args:
        recipe: every setting of the run.
        data: folder of the data set, see `internimage.data.label_maps.open.open_segmentation_dataset`.
        rank: number of this process among those that train together.
        world: their count.
        examine: called with the parts of the data set that the run uses, see `internimage.training.task.Examine`.

    Raises:
        FileNotFoundError: the folder lacks a part of the data.
        ValueError: the data or the start weights do not fit the recipe.
        CheckpointMismatch: the start weights are of another architecture.
    """

    metric = "val_miou"
    recipe: SegmentationRecipe

    def __init__(
        self,
        recipe: SegmentationRecipe,
        data: str | PathLike[str],
        *,
        rank: int = 0,
        world: int = 1,
        examine: Examine | None = None,
    ) -> None:
        recipe.check_batch()
        whole, own_val = open_parts(data, recipe.data, test_stands_in=wants_own_part(recipe))
        names = whole.class_names
        check_classes(recipe.model, names)
        recipe = with_start(recipe, names, len(whole))
        recipe = with_holdout(recipe, names, len(whole), has_val=own_val is not None)
        begins = examine is None or examine(used_parts(whole, own_val, recipe.data.holdout))
        train_set, self.val_set = divided(whole, own_val, recipe.data.holdout)
        check_examples(count_pixels(train_set), place=str(data), fewest_classes=2)
        self.can_measure = check_truth(count_pixels(self.val_set), place=str(data))
        recipe = with_batch(recipe, len(train_set) // world)
        recipe.check_batch()
        train_set = read_as(train_set, Reading(recipe.model.in_chans, recipe.preprocess.value_range))
        if begins:
            log_start(recipe.model, names)
        torch.manual_seed(recipe.run.seed)
        self.model = build_model(recipe, names, palette=whole.palette)
        if begins:
            load_start_weights(self.model, recipe.model)
        batches = SegmentationBatches(
            train_set,
            recipe.augment,
            batch_size=recipe.data.batch_size,
            seed=recipe.run.seed,
            rank=rank,
            world=world,
            workers=recipe.data.workers,
            mean=self.model.config.preprocess.mean,
            std=self.model.config.preprocess.std,
        )
        self.feed(recipe, batches)

    def loss(self, batch: SegmentationBatch, device: torch.device) -> dict[str, Tensor]:
        """Return the losses of a batch, see `Segmentor.loss`."""
        return self.model.loss(batch.images.to(device), batch.targets.to(device))

    def validate(self, model: Segmentor, progress: Callable[[int, int], None] | None = None) -> dict[str, float]:
        """Return mean intersection over union, mean and overall accuracy on the validation images, 0..1, or NaN."""
        if not self.can_measure:
            return dict.fromkeys(("val_miou", "val_macc", "val_aacc"), math.nan)
        settings = self.recipe.data
        report = evaluate_segmentation(
            model,
            self.val_set,
            batch_size=settings.val_batch_size,
            workers=settings.workers,
            max_unreadable=settings.max_unreadable,
            progress=progress,
        )
        return {"val_miou": report.miou, "val_macc": report.macc, "val_aacc": report.aacc}


def open_parts(
    data: str | PathLike[str], settings: SegmentationDataSettings, *, test_stands_in: bool = False
) -> tuple[SegmentationDataset, SegmentationDataset | None]:
    """Open the training part of a data set, and its own validation part or None.

    Args:
        data: folder of the data set.
        settings: layout, parts and classes.
        test_stands_in: validate on the test part where there is no other one.
    """
    options: dict[str, Any] = dict(layout=settings.layout)
    if settings.classes is not None:
        classes = class_list_setting(settings.classes, Path(data))
        options |= dict(class_names=classes.names, palette=classes.palette)
    train_set = open_segmentation_dataset(data, split=settings.train_split, **options)
    options["test_stands_in"] = test_stands_in
    try:
        return train_set, open_segmentation_dataset(data, split=settings.val_split, **options)
    except FileNotFoundError:
        if settings.val_split != "val":
            raise
        return train_set, None


def build_model(recipe: SegmentationRecipe, class_names: Sequence[str], *, palette: Palette | None = None) -> Segmentor:
    """Return the fresh segmentor of a recipe for these classes."""
    settings = recipe.model
    head = HEADS[settings.architecture]
    if not isinstance(head, Mask2FormerConfig):
        head = replace(head, count_ignored_pixels=settings.count_ignored_pixels)
    config = SegmentorConfig(
        backbone_of(settings),
        num_classes=len(class_names),
        head=head,
        preprocess=recipe.preprocess,
        class_names=tuple(class_names),
        palette=palette,
        classifier_rows=settings.classifier_rows,
    )
    return Segmentor(
        config,
        activation_checkpointing=settings.activation_checkpointing,
        frozen_stages=settings.frozen_stages,
        backend=settings.backend,
    )
