"""Training a segmentor: its data, model, losses and validation.

Shape legend: N pictures of a batch, H W size of the batch, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

import numpy as np
import torch
from torch import Tensor

from internimage.data import PictureDataset, hold_out
from internimage.data.segmentation import SegmentationBatch, SegmentationBatches, open_segmentation_dataset
from internimage.evaluation.segmentation import evaluate_segmentation
from internimage.segmentation import HEADS, Mask2FormerConfig, Segmentor, SegmentorConfig
from internimage.training.dense.start import backbone_of, check_classes, load_start_weights
from internimage.training.dense.task import DenseTask
from internimage.training.segmentation.config import SegmentationDataSettings, SegmentationRecipe
from internimage.types import Palette


class SegmentationTask(DenseTask[SegmentationBatch, Segmentor]):
    """A segmentor and the pictures it learns from.

    Args:
        recipe: every setting of the run.
        data: folder of the data set, see `internimage.data.segmentation.open_segmentation_dataset`.
        rank: number of this process among those that train together.
        world: their count.

    Raises:
        FileNotFoundError: the folder lacks a part of the data.
        ValueError: the data or the start weights do not fit the recipe.
        CheckpointMismatch: the start weights are of another architecture.
    """

    metric = "val_miou"

    def __init__(self, recipe: SegmentationRecipe, data: str | PathLike[str], *, rank: int = 0, world: int = 1) -> None:
        self.recipe = recipe
        train_set, self.val_set, palette = open_train_val(data, recipe.data)
        check_classes(recipe.model, train_set.class_names)
        torch.manual_seed(recipe.run.seed)
        self.model = build_model(recipe, train_set.class_names, palette=palette)
        load_start_weights(self.model, recipe.model)
        batches = SegmentationBatches(
            train_set,
            recipe.augment,
            batch_size=recipe.data.batch_size,
            seed=recipe.run.seed,
            rank=rank,
            world=world,
            workers=recipe.data.workers,
            mean=recipe.preprocess.mean,
            std=recipe.preprocess.std,
        )
        self.feed(recipe, batches)

    def loss(self, batch: SegmentationBatch, device: torch.device) -> dict[str, Tensor]:
        """Return the losses of a batch, see `Segmentor.loss`."""
        return self.model.loss(batch.images.to(device), batch.targets.to(device))

    def validate(self, model: Segmentor) -> dict[str, float]:
        """Return mean intersection over union, mean and overall accuracy on the validation pictures, 0..1."""
        settings = self.recipe.data
        report = evaluate_segmentation(
            model,
            self.val_set,
            batch_size=settings.val_batch_size,
            workers=settings.workers,
            max_unreadable=settings.max_unreadable,
        )
        return {"val_miou": report.miou, "val_macc": report.macc, "val_aacc": report.aacc}


def open_train_val(
    data: str | PathLike[str], settings: SegmentationDataSettings
) -> tuple[PictureDataset[np.ndarray], PictureDataset[np.ndarray], Palette | None]:
    """Open the training part and the validation part of a data set; also return the colors of its classes.

    Args:
        data: folder of the data set.
        settings: layout, parts, and how many training pictures to validate on.
    """
    train_set = open_segmentation_dataset(data, split=settings.train_split, layout=settings.layout)
    if settings.holdout:
        return *hold_out(train_set, settings.holdout), train_set.palette
    val_set = open_segmentation_dataset(data, split=settings.val_split, layout=settings.layout)
    return train_set, val_set, train_set.palette


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
