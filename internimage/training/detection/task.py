"""Training a detector: its data, model, losses and validation."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from internimage.backbones.config import COMPOSITE_PREFIX
from internimage.data import hold_out, read_as
from internimage.data.class_list import class_list_setting
from internimage.data.images.raster import Reading
from internimage.data.objects.census import count_examples, count_truth
from internimage.data.objects.dataset import DetectionDataset
from internimage.data.readers.open_objects import open_detection_dataset
from internimage.detection import DINO, RCNN, DINOConfig, RCNNConfig, build_detector
from internimage.detection.batches.grouping import class_balanced
from internimage.detection.evaluate import evaluate_detection
from internimage.training.dense.start import backbone_of, check_classes, load_start_weights
from internimage.training.dense.task import DenseTask
from internimage.training.detection.batches import DetectionBatch, DetectionBatches
from internimage.training.detection.config import ARCHITECTURES, DetectionDataSettings, DetectionRecipe
from internimage.training.examples import check_examples, check_truth
from internimage.training.own_data import wants_own_part, with_batch, with_holdout, with_start
from internimage.training.start import log_start
from internimage.training.task import Examine, used_parts

logger = logging.getLogger(__name__)
# Columns of the validation and the figures that they show, by the metric; masks come first where there are any.
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


class DetectionTask(DenseTask[DetectionBatch, RCNN | DINO]):
    """A detector and the images it learns from.

    Args:
        recipe: every setting of the run.
        data: folder of the data set, see `internimage.data.readers.open_objects.open_detection_dataset`.
        rank: number of this process among those that train together.
        world: their count.
        examine: called with the parts of the data set that the run uses, see `internimage.training.task.Examine`.

    Raises:
        FileNotFoundError: the folder lacks a part of the data.
        ValueError: the data or the start weights do not fit the recipe.
        CheckpointMismatch: the start weights are of another architecture.
    """

    recipe: DetectionRecipe

    def __init__(
        self,
        recipe: DetectionRecipe,
        data: str | PathLike[str],
        *,
        rank: int = 0,
        world: int = 1,
        examine: Examine | None = None,
    ) -> None:
        train_set, own_val = open_parts(data, recipe.data, test_stands_in=wants_own_part(recipe))
        names = train_set.class_names
        check_classes(recipe.model, names)
        recipe = with_start(recipe, names, len(train_set))
        recipe = for_boxes(recipe, train_set)
        recipe = with_holdout(recipe, names, len(train_set), has_val=own_val is not None)
        begins = examine is None or examine(used_parts(train_set, own_val, recipe.data.holdout))
        train_set, self.val_set = divided(train_set, own_val, recipe.data)
        check_examples(count_examples(train_set), place=train_set.name)
        self.can_measure = check_truth(count_truth(self.val_set), place=self.val_set.name)
        recipe = with_batch(recipe, len(train_set) // world)
        train_set = read_as(train_set, Reading(recipe.model.in_chans, recipe.preprocess.value_range))
        if begins:
            log_start(recipe.model, names)
        torch.manual_seed(recipe.run.seed)
        self.model = build_model(recipe, names)
        has_masks = isinstance(self.model.config, RCNNConfig) and self.model.config.mask is not None
        self.columns = dict(COLUMNS[recipe.data.metric])
        if has_masks and self.val_set.has_masks and recipe.data.metric in ("coco", "lvis"):
            self.columns |= MASK_COLUMNS
        self.metric = "val_mask_ap" if "val_mask_ap" in self.columns else "val_box_ap"
        if begins:
            load_start_weights(self.model, recipe.model)
        self.feed(recipe, DetectionBatches(train_set, recipe, masks=has_masks, rank=rank, world=world))

    def loss(self, batch: DetectionBatch, device: torch.device) -> dict[str, Tensor]:
        """Return the losses of a batch, see `Detector.loss`."""
        return self.model.loss(batch.images.to(device), [target.to(device) for target in batch.targets])

    def validate(self, model: RCNN | DINO, progress: Callable[[int, int], None] | None = None) -> dict[str, float]:
        """Return average precision on the validation images, 0..1; NaN where they show nothing."""
        if not self.can_measure:
            return dict.fromkeys(self.columns, math.nan)
        settings = self.recipe.data
        report = evaluate_detection(
            model,
            self.val_set,
            metric=settings.metric,
            batch_size=settings.val_batch_size,
            workers=settings.workers,
            max_unreadable=settings.max_unreadable,
            progress=progress,
        )
        metrics = report.metrics.values
        found = {column: metrics[name] for column, name in self.columns.items()}
        return {column: math.nan if value is None else value for column, value in found.items()}


def open_parts(
    data: str | PathLike[str], settings: DetectionDataSettings, *, test_stands_in: bool = False
) -> tuple[DetectionDataset, DetectionDataset | None]:
    """Open the training part of a data set, and its own validation part or None.

    Args:
        data: folder of the data set.
        settings: classes, part to validate on, and which images training leaves out.
        test_stands_in: validate on the test part where there is no other one.
    """
    is_filtered = {"auto": None, "yes": False, "no": True}[settings.keep_empty]
    names = None if settings.classes is None else class_list_setting(settings.classes, Path(data)).names
    train_set = open_detection_dataset(data, "train", class_names=names, filter_empty=is_filtered)
    names = train_set.class_names
    if settings.val_split is not None:
        return train_set, open_detection_dataset(data, settings.val_split, class_names=names)
    try:
        return train_set, open_detection_dataset(data, "val", class_names=names, test_stands_in=test_stands_in)
    except FileNotFoundError:
        return train_set, None


def divided(
    train_set: DetectionDataset, own_val: DetectionDataset | None, settings: DetectionDataSettings
) -> tuple[DetectionDataset, DetectionDataset]:
    """Return what is trained and what is validated on.

    Args:
        train_set: the training part.
        own_val: the data set's own validation part, or None.
        settings: how many training images are set aside, and which ones are repeated.

    Raises:
        FileNotFoundError: there is neither a validation part nor a holdout.
    """
    val_set = own_val
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


def for_boxes(recipe: DetectionRecipe, train_set: DetectionDataset) -> DetectionRecipe:
    """Return the recipe without its mask head where the data has boxes only.

    Raises:
        ValueError: the user has chosen to learn masks.
    """
    has_masks = getattr(architecture_of(recipe, train_set.class_names), "mask", None) is not None
    if train_set.has_masks or not has_masks:
        return recipe
    if "model.learn_masks" in recipe.explicit:
        raise ValueError(
            f"{train_set.name} has no masks to learn from; set model.learn_masks=false for a detector of boxes (or "
            "choose one, such as model.architecture=faster_rcnn), or give annotations with masks"
        )
    logger.info(
        "%s has no masks: trains a detector of boxes, %s without its mask head (model.learn_masks)",
        train_set.name,
        recipe.model.architecture,
    )
    return recipe.suited({"model.learn_masks": False})


def architecture_of(recipe: DetectionRecipe, class_names: Sequence[str]) -> RCNNConfig | DINOConfig:
    """Return the detector of a recipe for these classes, before the settings that only some detectors have."""
    settings = recipe.model
    config = ARCHITECTURES[settings.architecture](backbone_of(settings), len(class_names))
    if isinstance(config, RCNNConfig) and not settings.learn_masks:
        config = replace(config, mask=None)
    return replace(config, preprocess=recipe.preprocess, class_names=tuple(class_names))


def build_model(recipe: DetectionRecipe, class_names: Sequence[str]) -> RCNN | DINO:
    """Return the fresh detector of a recipe for these classes."""
    settings, config = recipe.model, architecture_of(recipe, class_names)
    if settings.max_per_image is not None:
        config = replace(config, max_per_image=settings.max_per_image)
    if isinstance(config, DINOConfig):
        is_composite = settings.backbone.startswith(COMPOSITE_PREFIX)
        denoising = config.denoising
        if settings.denoising_queries is not None:
            denoising = replace(denoising, num_queries=settings.denoising_queries)
        config = replace(
            config,
            num_backbones=2 if is_composite else 1,
            feedforward_slices=settings.feedforward_slices,
            denoising=denoising,
        )
    return build_detector(
        config,
        activation_checkpointing=settings.activation_checkpointing,
        frozen_stages=settings.frozen_stages,
        backend=settings.backend,
    )
