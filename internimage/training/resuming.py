"""With which settings a run goes on: its own, but for those that may change on the way."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from internimage.settings import from_plain
from internimage.training.overrides import setting_names
from internimage.training.own_data import as_started
from internimage.training.recipes import RECIPES
from internimage.training.settings import Recipe
from internimage.training.state import flat_settings

logger = logging.getLogger(__name__)

# Settings that do not change the numbers of a run and may therefore differ when it goes on.
FREE_SETTINGS = frozenset(
    {
        "run.threads",
        "run.save_minutes",
        "run.tensorboard",
        "run.plot",
        "data.workers",
        "data.max_unreadable",
        "published_top1",
        "published_box_ap",
        "published_mask_ap",
        "published_miou",
    }
)
# Lengths of a run, which may grow, and what may change with them.
LENGTHS, ALONG = ("schedule.epochs", "schedule.iterations"), "schedule.steps"


def resumed_recipe(saved: Mapping[str, Any], recipe: Recipe | str | None, overrides: Sequence[str]) -> Recipe:
    """Return the recipe that a run goes on with.

    Args:
        saved: the settings of the run, see `flat_settings`.
        recipe: None or the name of the run's recipe for the settings of the run; a recipe is compared with them.
        overrides: settings that are to differ, as far as they may.

    Raises:
        ValueError: a setting differs that changes the numbers of the run, or the recipe is another one.
        UnknownName: an override names no setting.
    """
    own = _recipe_of(saved, recipe)
    own = as_started(own, saved)
    if isinstance(recipe, str) and recipe != own.name:
        raise ValueError(
            f"the run goes by the recipe {own.name}, given {recipe}; leave the recipe out to go on with it"
        )
    chosen = (recipe if isinstance(recipe, Recipe) else own).with_overrides(overrides)
    chosen = as_started(chosen, saved)
    before, present = flat_settings(own), flat_settings(chosen)
    changed = [key for key in present if present[key] != before.get(key)]
    longer = {key for key in LENGTHS if key in changed and present[key] > before[key] > 0}
    allowed = FREE_SETTINGS | longer | ({ALONG} if longer else set())
    refused = [key for key in changed if key not in allowed]
    if refused:
        listed = [f"  {key}: started with {before.get(key)!r}, given {present[key]!r}" for key in sorted(refused)]
        raise ValueError(
            "a run can only be resumed with the settings it was started with, which it takes up by itself:\n"
            + "\n".join(listed)
        )
    for key in changed:
        if not key.startswith("published"):
            logger.warning("goes on with %s=%s, so far %s%s", key, present[key], before[key], _effect(key))
    return chosen


def _recipe_of(saved: Mapping[str, Any], recipe: Recipe | str | None) -> Recipe:
    """Rebuild the recipe of a run; settings that it did not have yet take their default."""
    name = saved.get("name")
    if isinstance(recipe, Recipe):
        kind = type(recipe)
    elif name in RECIPES:
        kind = type(RECIPES[name])
    else:
        raise ValueError(f"the run goes by the recipe {name!r}, which is none of this package; give the recipe itself")
    nested: dict[str, Any] = {}
    unknown = sorted(saved.keys() - set(setting_names(kind)))
    for key, value in saved.items():
        if key not in unknown:
            section, _, inner = key.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[inner] = value
    if unknown:
        logger.warning("the run has settings that this release does not know: %s", ", ".join(unknown))
    try:
        return from_plain(kind, nested)
    except TypeError as error:
        raise ValueError(f"the settings of the run cannot be read ({error}); start a new run") from error


def _effect(key: str) -> str:
    return "; the learning rate is that of the longer run from here on" if key in LENGTHS else ""
