"""Which published checkpoint belongs to a recipe, and which recipe to a checkpoint.

A recipe has the name of the configuration file of its run; some checkpoints are called otherwise.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from internimage.zoo.catalog import CatalogEntry, catalog, find
from internimage.zoo.factory import load


def published_checkpoint(recipe: str) -> CatalogEntry | None:
    """Return the checkpoint that a run of this recipe left behind, or None.

    Example:
        >>> published_checkpoint("dino_4scale_internimage_t_1x_coco_layer_wise_lr").name
        'dino_4scale_internimage_t_1x_coco'
        >>> published_checkpoint("dino_internimage_pico_closet") is None
        True
    """
    entry = find(recipe)
    if entry is None:
        entry = next((row for row in catalog().values() if _is_configured_by(row, recipe)), None)
    return entry if entry is not None and entry.is_built and entry.source != "unpublished" else None


def recipe_of_checkpoint(name: str, recipes: Iterable[str]) -> str | None:
    """Return the recipe, one of `recipes`, whose run left a checkpoint of this name behind, or None."""
    entry = find(name)
    if entry is None:
        return None
    return next((recipe for recipe in recipes if published_checkpoint(recipe) == entry), None)


def published_class_names(entry: CatalogEntry) -> tuple[str, ...] | None:
    """Return the classes of a checkpoint as far as they are known without a download, or None."""
    return _bundled_class_names(entry.name) if entry.source == "bundled" else entry.class_names


@functools.cache
def _bundled_class_names(name: str) -> tuple[str, ...] | None:
    return getattr(load(name).config, "class_names", None)


def _is_configured_by(entry: CatalogEntry, recipe: str) -> bool:
    """Whether a row names this configuration; `{07,12}` in it stands for either."""
    if entry.config_path is None:
        return False
    stem = re.escape(entry.config_path.rpartition("/")[2].rpartition(".")[0])
    choices = re.sub(r"\\\{(.+?)\\\}", lambda found: f"(?:{found[1].replace(',', '|')})", stem)
    return re.fullmatch(choices, recipe) is not None
