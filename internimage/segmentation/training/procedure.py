"""Training a segmentor: its data, model, losses and validation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from internimage.checkpoints.class_rows import with_classes_of
from internimage.data import ImageDataset, read_as
from internimage.data.class_list import class_list_setting
from internimage.data.examples import ExampleCount
from internimage.data.label_maps.census import count_pixels
from internimage.data.label_maps.open import open_segmentation_dataset
from internimage.recipe.task import Batches, LimitedBatches, Progress, TrainingTask, hold_out_or_own
from internimage.segmentation.batches.batches import SegmentationBatch, SegmentationBatches
from internimage.segmentation.evaluate import evaluate_segmentation
from internimage.segmentation.model import Segmentor
from internimage.segmentation.training.recipe import SegmentationRecipe
from internimage.types import Images, Palette

LabelMaps = ImageDataset[np.ndarray]
EXAMPLE_SIDE = 1024  # of a made-up image where the recipe cuts none out


class SegmentationTraining(TrainingTask[SegmentationRecipe, LabelMaps, SegmentationBatch, Segmentor]):
    """How segmentors are trained."""

    def open(
        self, recipe: SegmentationRecipe, data: str | PathLike[str], *, test_stands_in: bool
    ) -> tuple[LabelMaps, LabelMaps | None]:
        """Open the training part of a data set, and its own validation part or None."""
        settings = recipe.data
        classes = None if settings.classes is None else class_list_setting(settings.classes, Path(data))
        names, palette = (None, None) if classes is None else (classes.names, classes.palette)
        layout = settings.layout
        train_set = open_segmentation_dataset(
            data, split=settings.train_split, layout=layout, class_names=names, palette=palette
        )
        try:
            return train_set, open_segmentation_dataset(
                data,
                split=settings.val_split,
                layout=layout,
                class_names=names,
                palette=palette,
                test_stands_in=test_stands_in,
            )
        except FileNotFoundError:
            if settings.val_split != "val":
                raise
            return train_set, None

    def check_batch(self, recipe: SegmentationRecipe) -> None:
        """Raise ValueError for batches that the head cannot be trained on."""
        recipe.check_batch()

    def divided(
        self, recipe: SegmentationRecipe, train_set: LabelMaps, own_val: LabelMaps | None
    ) -> tuple[LabelMaps, LabelMaps]:
        """Return what is trained and what is validated on."""
        return hold_out_or_own(train_set, own_val, recipe.data.holdout)

    def examples(self, train_set: LabelMaps) -> ExampleCount:
        """Count the pixels of each class."""
        return count_pixels(train_set)

    def targets(self, val_set: LabelMaps) -> ExampleCount:
        """Count the pixels to be found."""
        return count_pixels(val_set)

    def read(self, recipe: SegmentationRecipe, train_set: LabelMaps) -> LabelMaps:
        """Return the training images as the model reads them."""
        return read_as(train_set, recipe.model.config.preprocess.reading)

    def build(self, recipe: SegmentationRecipe, data: LabelMaps) -> Segmentor:
        """Return the fresh segmentor for the classes of the data."""
        names, settings = tuple(data.class_names), recipe.model
        palette: Palette | None = getattr(data, "palette", None)
        return Segmentor(
            replace(settings.config, num_classes=len(names), class_names=names, palette=palette), **settings.running
        )

    def start_state(self, model: Segmentor, given: nn.Module, *, source: str, reset_head: bool) -> Mapping[str, Tensor]:
        """Return the start weights."""
        if not isinstance(given, Segmentor):
            raise ValueError(
                f"{source} is no model for segmentation; set model.weights=none model.backbone_weights={source} to "
                "start from its backbone"
            )
        return with_classes_of(model, given.config, given.state_dict(), source=source, reset_head=reset_head)

    def batches(self, recipe: SegmentationRecipe, model: Segmentor, train_set: LabelMaps) -> Batches[SegmentationBatch]:
        """Return the batches of this process."""
        found = SegmentationBatches(
            train_set,
            recipe.augment,
            batch_size=recipe.data.batch_size,
            seed=recipe.run.seed,
            workers=recipe.data.workers,
            mean=model.config.preprocess.mean,
            std=model.config.preprocess.std,
        )
        return LimitedBatches(found, recipe.data.max_unreadable)

    def example_batch(
        self, recipe: SegmentationRecipe, model: Segmentor, images: int, *, scale: float = 1.0
    ) -> SegmentationBatch:
        """Return made-up images of eight stripes, each a class."""
        height, width = (round(side * scale) for side in recipe.augment.crop_hw or (EXAMPLE_SIDE, EXAMPLE_SIDE))
        stripes = (torch.arange(width) * 8 // width % model.config.num_classes).to(torch.uint8)
        pixels = torch.randn(images, recipe.model.config.backbone.in_chans, height, width)
        batch = Images(pixels, torch.tensor([[height, width]] * images), ((height, width),) * images)
        return SegmentationBatch(batch, stripes.expand(images, height, width))

    def loss(
        self, recipe: SegmentationRecipe, model: Segmentor, batch: SegmentationBatch, device: torch.device
    ) -> dict[str, Tensor]:
        """Return the losses of a batch, see `Segmentor.loss`."""
        return model.loss(batch.images.to(device), batch.targets.to(device))

    def metric(self, recipe: SegmentationRecipe, model: Segmentor, val_set: LabelMaps) -> str:
        """Return the column that decides which weights are the best."""
        return "val_miou"

    def unmeasured(self, recipe: SegmentationRecipe, model: Segmentor, val_set: LabelMaps) -> dict[str, float]:
        """Return NaN for each column."""
        return dict.fromkeys(("val_miou", "val_macc", "val_aacc"), math.nan)

    def validate(
        self, recipe: SegmentationRecipe, model: Segmentor, val_set: LabelMaps, progress: Progress | None = None
    ) -> dict[str, float]:
        """Return mean intersection over union, mean and overall accuracy on the validation images, 0..1."""
        report = evaluate_segmentation(model, val_set, progress=progress, **recipe.data.in_validation())
        return {"val_miou": report.miou, "val_macc": report.macc, "val_aacc": report.aacc}


TRAINING = SegmentationTraining()
