"""From a recipe to the task that it trains."""

from __future__ import annotations

from os import PathLike
from typing import Any

from internimage.training.classification.config import ClassificationRecipe
from internimage.training.classification.task import ClassificationTask
from internimage.training.detection.config import DetectionRecipe
from internimage.training.detection.task import DetectionTask
from internimage.training.segmentation.config import SegmentationRecipe
from internimage.training.segmentation.task import SegmentationTask
from internimage.training.settings import Recipe
from internimage.training.task import Examine, TrainingTask


def build_task(
    recipe: Recipe, data: str | PathLike[str], *, rank: int = 0, world: int = 1, examine: Examine | None = None
) -> TrainingTask[Any, Any]:
    """Open the data set of a recipe and build its model.

    Args:
        recipe: every setting of the run.
        data: folder of the data set.
        rank: number of this process among those that train together.
        world: their count.
        examine: called with the parts of the data set that the run uses, see `internimage.training.task.Examine`.

    Raises:
        TypeError: the recipe is of no known task.
        ValueError: the data does not fit the recipe.
    """
    if isinstance(recipe, ClassificationRecipe):
        return ClassificationTask(recipe, data, rank=rank, world=world, examine=examine)
    if isinstance(recipe, DetectionRecipe):
        return DetectionTask(recipe, data, rank=rank, world=world, examine=examine)
    if isinstance(recipe, SegmentationRecipe):
        return SegmentationTask(recipe, data, rank=rank, world=world, examine=examine)
    raise TypeError(f"expected a recipe for classification, detection or segmentation, given {type(recipe).__name__}")
