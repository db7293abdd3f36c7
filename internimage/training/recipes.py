"""All recipes by name."""

from __future__ import annotations

import logging

from internimage.errors import UnknownName
from internimage.training.classification.recipes import RECIPES as CLASSIFICATION
from internimage.training.detection.recipes import RECIPES as DETECTION
from internimage.training.published import advice_for
from internimage.training.segmentation.recipes import RECIPES as SEGMENTATION
from internimage.training.settings import Recipe

logger = logging.getLogger(__name__)
RECIPES: dict[str, Recipe] = {**CLASSIFICATION, **DETECTION, **SEGMENTATION}


def recipe(name: str) -> Recipe:
    """Return a recipe by its name, or by that of the checkpoint that its run left behind.

    Raises:
        UnknownName: no such recipe; the message suggests the nearest ones, for a checkpoint how to train on from it.

    Example:
        >>> recipe("internimage_t_1k_224").schedule.epochs
        300
    """
    if name in RECIPES:
        return RECIPES[name]
    advice = advice_for(name)
    if advice is None:
        raise UnknownName("recipe", name, RECIPES, "`internimage train --list` shows them all.")
    if not advice.settings:
        logger.info("the recipe of the checkpoint %s is called %s", name, advice.recipe)
        return RECIPES[advice.recipe]
    settings = " ".join(f"--set {text}" for text in advice.settings)
    raise UnknownName(
        "recipe",
        name,
        [advice.recipe],
        f"It is a checkpoint; `internimage train {advice.recipe} {settings}` trains on.",
    )
