"""Training a detector: its data, model, losses and validation."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from internimage.checkpoints.class_rows import with_classes_of
from internimage.data import hold_out, read_as
from internimage.data.class_list import class_list_setting
from internimage.data.examples import ExampleCount
from internimage.data.objects.census import count_examples, count_targets
from internimage.data.objects.dataset import DetectionDataset
from internimage.data.readers.open_objects import open_detection_dataset
from internimage.detection.batches.grouping import class_balanced
from internimage.detection.batches.pipelines import largest_sides
from internimage.detection.dino.model import DINO
from internimage.detection.evaluate import evaluate_detection
from internimage.detection.model import Detector
from internimage.detection.presets import build_detector
from internimage.detection.rcnn.model import RCNN
from internimage.detection.training.batches import DetectionBatch, DetectionBatches, pipeline_of
from internimage.detection.training.recipe import DetectionRecipe, architecture_of, has_masks
from internimage.recipe.recipe import CONFIG
from internimage.recipe.task import Batches, LimitedBatches, Progress, TrainingTask
from internimage.types import DetectionTargets, Images

logger = logging.getLogger("internimage.training.detection")
# Columns of the validation and the metrics that they show; masks come first where there are any.
COCO_COLUMNS = {"val_box_ap": "box_AP", "val_box_ap50": "box_AP50", "val_box_ap75": "box_AP75"}
MASK_COLUMNS = {"val_mask_ap": "mask_AP", "val_mask_ap50": "mask_AP50", "val_mask_ap75": "mask_AP75"}
COLUMNS: dict[str, dict[str, str]] = {
    "coco": COCO_COLUMNS,
    "lvis": COCO_COLUMNS,
    "voc2007": {"val_box_ap": "mAP"},
    "voc2012": {"val_box_ap": "mAP"},
    "openimages": {"val_box_ap": "mAP"},
    "crowdhuman": {"val_box_ap": "AP", "val_miss_rate": "MR^-2"},
}
MASK_HEADS = "mask_heads."
EXAMPLE_OBJECTS = 10  # in a made-up image


class DetectionTraining(TrainingTask[DetectionRecipe, DetectionDataset, DetectionBatch, RCNN | DINO]):
    """How detectors are trained."""

    fewest_classes = 1

    def open(
        self, recipe: DetectionRecipe, data: str | PathLike[str], *, test_stands_in: bool
    ) -> tuple[DetectionDataset, DetectionDataset | None]:
        """Open the training part of a data set, and its own validation part or None."""
        settings = recipe.data
        leaves_out_empty = {"auto": None, "yes": False, "no": True}[settings.keep_empty]
        names = None if settings.classes is None else class_list_setting(settings.classes, Path(data)).names
        train_set = open_detection_dataset(data, "train", class_names=names, filter_empty=leaves_out_empty)
        names = train_set.class_names
        if settings.val_split is not None:
            return train_set, open_detection_dataset(data, settings.val_split, class_names=names)
        try:
            return train_set, open_detection_dataset(data, "val", class_names=names, test_stands_in=test_stands_in)
        except FileNotFoundError:
            return train_set, None

    def suited(self, recipe: DetectionRecipe, train_set: DetectionDataset) -> DetectionRecipe:
        """Return the recipe without its mask head where the data has boxes only.

        Raises:
            ValueError: the user has chosen to learn masks.
        """
        if train_set.has_masks or not has_masks(recipe.model.config):
            return recipe
        if not recipe.explicit.isdisjoint(("model.learn_masks", f"{CONFIG}.mask")):
            raise ValueError(
                f"{train_set.name} has no masks to learn from; set model.learn_masks=false for a detector of boxes (or "
                "choose one, such as model.architecture=faster_rcnn), or give annotations with masks"
            )
        logger.info(
            "%s has no masks: trains a detector of boxes, %s without its mask head (model.learn_masks)",
            train_set.name,
            architecture_of(recipe.model.config) or "the model",
        )
        return recipe.suited({f"{CONFIG}.mask": None})

    def divided(
        self, recipe: DetectionRecipe, train_set: DetectionDataset, own_val: DetectionDataset | None
    ) -> tuple[DetectionDataset, DetectionDataset]:
        """Return what is trained, rare classes repeated where the recipe asks for it, and what is validated on."""
        settings, val_set = recipe.data, own_val
        if settings.holdout:
            rest, held = hold_out(train_set, settings.holdout)
            train_set, val_set = train_set.select(rest.indices), train_set.select(held.indices)
        if val_set is None:
            raise FileNotFoundError(
                f"{train_set.name} has no validation part; leave data.holdout out, or set it to the number of training "
                "images to validate on"
            )
        if settings.balance_threshold:
            train_set = class_balanced(train_set, threshold=settings.balance_threshold)
        return train_set, val_set

    def examples(self, train_set: DetectionDataset) -> ExampleCount:
        """Count the objects of each class."""
        return count_examples(train_set)

    def targets(self, val_set: DetectionDataset) -> ExampleCount:
        """Count the objects to be found."""
        return count_targets(val_set)

    def read(self, recipe: DetectionRecipe, train_set: DetectionDataset) -> DetectionDataset:
        """Return the training images as the model reads them."""
        return read_as(train_set, recipe.model.config.preprocess.reading)

    def build(self, recipe: DetectionRecipe, data: DetectionDataset) -> RCNN | DINO:
        """Return the fresh detector for the classes of the data."""
        names, settings = tuple(data.class_names), recipe.model
        return build_detector(replace(settings.config, num_classes=len(names), class_names=names), **settings.running)

    def start_state(
        self, model: RCNN | DINO, given: nn.Module, *, source: str, reset_head: bool
    ) -> Mapping[str, Tensor]:
        """Return the start weights; a detector of boxes takes all but the mask heads."""
        if not isinstance(given, Detector):
            raise ValueError(
                f"{source} is no model for detection; set model.weights=none model.backbone_weights={source} to start "
                "from its backbone"
            )
        state = given.state_dict()
        if not any(key.startswith(MASK_HEADS) for key in model.state_dict()):
            state = {key: value for key, value in state.items() if not key.startswith(MASK_HEADS)}
        return with_classes_of(model, given.config, state, source=source, reset_head=reset_head)

    def batches(
        self, recipe: DetectionRecipe, model: RCNN | DINO, train_set: DetectionDataset
    ) -> Batches[DetectionBatch]:
        """Return the batches of this process."""
        found = DetectionBatches(train_set, recipe, masks=has_masks(model.config))
        return LimitedBatches(found, recipe.data.max_unreadable)

    def example_batch(
        self, recipe: DetectionRecipe, model: RCNN | DINO, images: int, *, scale: float = 1.0
    ) -> DetectionBatch:
        """Return made-up images, each with a row of objects, the widest that a run may have."""
        divisor = model.config.preprocess.divisor
        shorter, longer = (round(side * scale) for side in largest_sides(pipeline_of(recipe.augment)))
        height, width = (-(-side // divisor) * divisor for side in (shorter, longer))
        left = torch.arange(EXAMPLE_OBJECTS) * (longer / EXAMPLE_OBJECTS)
        boxes = torch.stack([left, left * 0, left + longer / EXAMPLE_OBJECTS, left * 0 + shorter / 2], dim=1)
        masks = torch.zeros(EXAMPLE_OBJECTS, height, width, dtype=torch.uint8) if has_masks(model.config) else None
        if masks is not None:
            masks[:, : shorter // 2] = 1
        target = DetectionTargets(boxes, torch.arange(EXAMPLE_OBJECTS) % model.config.num_classes, masks)
        pixels = torch.randn(images, model.config.backbone.in_chans, height, width)
        sizes = torch.tensor([[shorter, longer]] * images)
        return DetectionBatch(Images(pixels, sizes, ((shorter, longer),) * images), [target] * images)

    def loss(
        self, recipe: DetectionRecipe, model: RCNN | DINO, batch: DetectionBatch, device: torch.device
    ) -> dict[str, Tensor]:
        """Return the losses of a batch, see `Detector.loss`."""
        return model.loss(batch.images.to(device), [target.to(device) for target in batch.targets])

    def columns(self, recipe: DetectionRecipe, model: RCNN | DINO, val_set: DetectionDataset) -> dict[str, str]:
        """Return what validation measures: its columns and the metrics that they show."""
        columns = dict(COLUMNS[recipe.data.metric])
        if has_masks(model.config) and val_set.has_masks and recipe.data.metric in ("coco", "lvis"):
            columns |= MASK_COLUMNS
        return columns

    def metric(self, recipe: DetectionRecipe, model: RCNN | DINO, val_set: DetectionDataset) -> str:
        """Return the column that decides which weights are the best."""
        return "val_mask_ap" if "val_mask_ap" in self.columns(recipe, model, val_set) else "val_box_ap"

    def unmeasured(self, recipe: DetectionRecipe, model: RCNN | DINO, val_set: DetectionDataset) -> dict[str, float]:
        """Return NaN for each column."""
        return dict.fromkeys(self.columns(recipe, model, val_set), math.nan)

    def validate(
        self,
        recipe: DetectionRecipe,
        model: RCNN | DINO,
        val_set: DetectionDataset,
        progress: Progress | None = None,
    ) -> dict[str, float]:
        """Return average precision on the validation images, 0..1."""
        report = evaluate_detection(
            model, val_set, metric=recipe.data.metric, progress=progress, **recipe.data.in_validation()
        )
        values = report.metrics.values
        found = {column: values[name] for column, name in self.columns(recipe, model, val_set).items()}
        return {column: math.nan if value is None else value for column, value in found.items()}


TRAINING = DetectionTraining()
