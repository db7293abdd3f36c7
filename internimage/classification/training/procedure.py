"""Training a classifier: its data, model, losses and validation.

Shape legend: B images of a batch, S side in pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from internimage.checkpoints.class_rows import take_rows
from internimage.classification.evaluate import evaluate_classification
from internimage.classification.model import Classifier
from internimage.classification.training.batches import TrainBatch, TrainBatches, train_batches
from internimage.classification.training.recipe import ClassificationRecipe
from internimage.data import FashionMNIST, ImageDataset, open_dataset, read_as
from internimage.data.examples import ExampleCount, count_images
from internimage.data.readers.open_labels import open_whole
from internimage.recipe.task import Progress, TrainingTask, hold_out_or_own
from internimage.types import Images

# A new last layer starts near zero, so that the first steps do not tear up the weights below it (as published).
NEW_LAYER_SCALE = 1e-3
LAST_LAYERS = ("head.classifier.", "head.image.classifier.")  # of all models; of the images in models with metadata


class ClassificationTraining(TrainingTask[ClassificationRecipe, ImageDataset[int], TrainBatch, Classifier]):
    """How classifiers are trained."""

    may_skip_parameters = False

    def open(
        self, recipe: ClassificationRecipe, data: str | PathLike[str], *, test_stands_in: bool
    ) -> tuple[ImageDataset[int], ImageDataset[int] | None]:
        """Open the parts of a data set; class folders alone are all for training."""
        if (whole := open_whole(Path(data))) is not None:
            return whole, None
        train_set = open_dataset(data, "train")
        if recipe.data.val_split is not None:
            return train_set, open_dataset(data, recipe.data.val_split)
        if isinstance(train_set, FashionMNIST) and not test_stands_in:
            return train_set, None
        try:
            return train_set, open_dataset(data, "val", test_stands_in=test_stands_in)
        except FileNotFoundError:
            return train_set, None

    def divided(
        self, recipe: ClassificationRecipe, train_set: ImageDataset[int], own_val: ImageDataset[int] | None
    ) -> tuple[ImageDataset[int], ImageDataset[int]]:
        """Return what is trained and what is validated on."""
        return hold_out_or_own(train_set, own_val, recipe.data.holdout)

    def examples(self, train_set: ImageDataset[int]) -> ExampleCount | None:
        """Count the images of each class."""
        return count_images(train_set)

    def read(self, recipe: ClassificationRecipe, train_set: ImageDataset[int]) -> ImageDataset[int]:
        """Return the training images as the model reads them."""
        reading = recipe.model.config.preprocess.reading
        return read_as(train_set, replace(reading, decode_side=recipe.data.decode_side or None))

    def build(self, recipe: ClassificationRecipe, data: ImageDataset[int]) -> Classifier:
        """Return the fresh classifier for the classes of the data."""
        names, settings = data.class_names, recipe.model
        return Classifier(replace(settings.config, num_classes=len(names), class_names=names), **settings.running)

    def start_state(
        self, model: Classifier, given: nn.Module, *, source: str, reset_head: bool
    ) -> Mapping[str, Tensor]:
        """Return the start weights; the last layer takes the rows of classes of the same names, new ones start afresh.

        Where one side has no names, the counts of classes must agree (or be the 21,841 and 1,000 of ImageNet), or
        `reset_head` must ask for a new last layer.
        """
        expected, state = model.state_dict(), given.state_dict()
        is_whole, given_metadata = isinstance(given, Classifier), isinstance(given, Classifier) and given.takes_metadata
        if not is_whole:
            state = {f"backbone.{key}": value for key, value in state.items()}
        elif model.takes_metadata and not given_metadata:
            state = {_below_image(key): value for key, value in state.items()}
            # The source has nothing to give to the branch that reads metadata, which starts afresh.
            state |= {key: value for key, value in expected.items() if _reads_metadata(key)}
        if reset_head:
            last = LAST_LAYERS[1] if model.takes_metadata else LAST_LAYERS[0]
            state = {key: value for key, value in expected.items() if key.startswith("head.")} | state
            for key, value in expected.items():
                if key.startswith(LAST_LAYERS):
                    state[key] = value * NEW_LAYER_SCALE if key.startswith(last) else value
        elif isinstance(given, Classifier):
            starts_afresh = model.takes_metadata and not given_metadata  # the branch of the metadata
            layers = LAST_LAYERS[1:] if starts_afresh else LAST_LAYERS
            fresh = {key: value * NEW_LAYER_SCALE for key, value in expected.items() if key.startswith(layers)}
            state = take_rows(state, fresh, model.config, given.config, source)
        return state

    def batches(self, recipe: ClassificationRecipe, model: Classifier, train_set: ImageDataset[int]) -> TrainBatches:
        """Return the batches of this process."""
        return train_batches(train_set, recipe, model.config.preprocess)

    def example_batch(
        self, recipe: ClassificationRecipe, model: Classifier, images: int, *, scale: float = 1.0
    ) -> TrainBatch:
        """Return made-up images of made-up classes."""
        side = round(recipe.size * scale)
        pixels = torch.randn(images, recipe.model.config.backbone.in_chans, side, side)
        return TrainBatch(pixels, torch.arange(images) % model.config.num_classes)

    def loss(
        self, recipe: ClassificationRecipe, model: Classifier, batch: TrainBatch, device: torch.device
    ) -> dict[str, Tensor]:
        """Return the cross entropy of a batch."""
        images, targets = to_images(batch.pixels, batch.metadata).to(device), batch.targets.to(device)
        smoothing = 0.0 if targets.is_floating_point() else recipe.label_smoothing
        return model.loss(images, targets, label_smoothing=smoothing)

    def metric(self, recipe: ClassificationRecipe, model: Classifier, val_set: ImageDataset[int]) -> str:
        """Return the column that decides which weights are the best."""
        return "val_top1"

    def validate(
        self,
        recipe: ClassificationRecipe,
        model: Classifier,
        val_set: ImageDataset[int],
        progress: Progress | None = None,
    ) -> dict[str, float]:
        """Return loss, top-1 and top-5 on the validation images."""
        report = evaluate_classification(model, val_set, progress=progress, **recipe.data.in_validation())
        return {"val_loss": report.loss, "val_top1": report.top1, "val_top5": report.top5}

    def start_hint(self, missing: Sequence[str]) -> str:
        """Return what to do about start weights that do not fit."""
        if missing and all(key.startswith("head.") for key in missing):
            return "The weights are a bare backbone: set model.reset_head=true to start with a new head."
        return "model.backbone, model.head and model.weights of the recipe must belong together."


TRAINING = ClassificationTraining()


def _below_image(key: str) -> str:
    return key.replace("head.", "head.image.", 1) if key.startswith("head.") else key


def _reads_metadata(key: str) -> bool:
    return key.startswith("head.") and not key.startswith("head.image.")


def to_images(pixels: Tensor, metadata: Tensor | None = None) -> Images:
    """Wrap (B, C, S, S) training pixels, which have no padding, and what else is known of the images."""
    sizes = torch.tensor(pixels.shape[-2:]).expand(len(pixels), 2)
    return Images(pixels, sizes, ((pixels.shape[-2], pixels.shape[-1]),) * len(pixels), metadata)
