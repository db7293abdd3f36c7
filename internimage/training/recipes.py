"""All recipes by name."""

from __future__ import annotations

from internimage.errors import UnknownName
from internimage.training.classification.recipes import RECIPES as CLASSIFICATION
from internimage.training.detection.recipes import RECIPES as DETECTION
from internimage.training.segmentation.recipes import RECIPES as SEGMENTATION
from internimage.training.settings import Recipe

RECIPES: dict[str, Recipe] = {**CLASSIFICATION, **DETECTION, **SEGMENTATION}


def recipe(name: str) -> Recipe:
    """Return a recipe by its name.

    Raises:
        UnknownName: no such recipe; the message suggests the nearest ones.

    Example:
        >>> recipe("internimage_t_1k_224").schedule.epochs
        300
    """
    if name not in RECIPES:
        raise UnknownName("recipe", name, RECIPES)
    return RECIPES[name]
