"""With which settings a run goes on: its own, but for those that may change on the way."""

from __future__ import annotations

import dataclasses
import logging
import typing
from collections.abc import Mapping, Sequence

from internimage.recipe import Recipe
from internimage.settings import leaves
from internimage.training.own_data import as_started
from internimage.training.recipes import KINDS, RECIPES
from internimage.training.state import flat_settings, nested_settings

logger = logging.getLogger(__name__)

# Settings that do not change the numbers of a run and may therefore differ when it goes on.
FREE_SETTINGS = frozenset(
    {
        "run.threads",
        "run.compile",
        "run.save_minutes",
        "run.keep_states",
        "run.tensorboard",
        "run.trackers",
        "run.track_every",
        "run.plot",
        "data.workers",
        "data.max_unreadable",
        "parallel.timeout_minutes",
        "parallel.strategy",
        "parallel.offload",
    }
)
BATCH_SIZE = "data.batch_size"
# Lengths of a run, which may grow, and what may change with them.
LENGTHS, ALONG = ("schedule.epochs", "schedule.iterations"), "schedule.steps"


def resumed_recipe(
    saved: Mapping[str, object], recipe: Recipe | str | None, overrides: Sequence[str], *, task: str | None = None
) -> Recipe:
    """Return the recipe that a run goes on with.

    Args:
        saved: the settings of the run, see `flat_settings`.
        recipe: None or the name of the run's recipe for the settings of the run; a recipe is compared with them.
        overrides: settings that are to differ, as far as they may.
        task: what the run trains; None leaves it to the name of its recipe.

    Raises:
        ValueError: a setting differs that changes the numbers of the run, or the recipe is another one.
        UnknownName: an override names no setting.
    """
    own = _recipe_of(saved, recipe, task)
    own = as_started(own, own)
    if isinstance(recipe, str) and recipe != own.name:
        raise ValueError(
            f"the run goes by the recipe {own.name}, given {recipe}; leave the recipe out to go on with it"
        )
    chosen = (recipe if isinstance(recipe, Recipe) else own).with_overrides(overrides)
    chosen = as_started(chosen, own)
    before, present = flat_settings(own), flat_settings(chosen)
    changed = [key for key in dict.fromkeys((*present, *before)) if present.get(key) != before.get(key)]
    longer = {key for key in LENGTHS if key in changed and present[key] > before[key] > 0}
    allowed = FREE_SETTINGS | longer | ({ALONG} if longer else set())
    refused = [key for key in changed if key not in allowed]
    if refused:
        listed = [
            f"  {own.shown(key)}: started with {before.get(key)!r}, given {present.get(key)!r}"
            for key in sorted(refused)
        ]
        raise ValueError(
            "a run can only be resumed with the settings it was started with, which it takes up by itself:\n"
            + "\n".join(listed)
        )
    for key in changed:
        logger.warning("goes on with %s=%s, so far %s%s", key, present[key], before[key], _effect(key))
    return chosen


def shared_anew(saved: Mapping[str, object], *, before: int, now: int) -> Mapping[str, object]:
    """Return the settings of a run for another number of processes: a whole batch keeps its images.

    Args:
        saved: the settings of the run, see `flat_settings`.
        before: processes that trained together so far.
        now: processes that go on.

    Raises:
        ValueError: the images of a whole batch cannot be shared out evenly.
    """
    size = saved.get(BATCH_SIZE)
    if before == now or not isinstance(size, int):
        return saved
    if size * before % now:
        raise ValueError(
            f"the run has {size * before} images in a batch ({before} x {BATCH_SIZE}={size}), which {now} processes "
            f"cannot share evenly; go on with a number of processes that divides {size * before}"
        )
    logger.info("%d processes go on instead of %d, with %d images each", now, before, size * before // now)
    return {**saved, BATCH_SIZE: size * before // now}


def _recipe_of(saved: Mapping[str, object], recipe: Recipe | str | None, task: str | None) -> Recipe:
    """Rebuild the recipe of a run; settings that it did not have yet take their default."""
    name = saved.get("name")
    if isinstance(recipe, Recipe):
        base: Recipe | None = recipe
    else:
        base = RECIPES.get(str(name))
    kind = KINDS.get(task or "") if base is None else type(base)
    if kind is None:
        raise ValueError(f"the run goes by the recipe {name!r}, which is none of this package; give the recipe itself")
    try:
        if base is not None and any(name in saved for name in (*base.SHORT, *base.CHOICES)):
            saved = _as_today(saved, base)
        known = {key for key in saved if not _is_unknown(key, saved, kind)}
        if unknown := sorted(saved.keys() - known):
            logger.warning("the run has settings that this release does not know: %s", ", ".join(unknown))
        return kind.from_dict(nested_settings({key: saved[key] for key in known}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the settings of the run cannot be read ({error}); start a new run") from error


def _is_unknown(key: str, saved: Mapping[str, object], kind: type[Recipe]) -> bool:
    """Whether a section of this kind of recipes has no such setting; those of the model's configuration are its own."""
    section, _, name = key.partition(".")
    fields = {part.name: part for part in dataclasses.fields(kind)}
    if section not in fields or not name or (section == "model" and name.startswith("config.")):
        return section not in fields
    hint = typing.get_type_hints(kind)[section]
    owner = typing.get_origin(hint) or hint
    return name.partition(".")[0] not in {part.name for part in dataclasses.fields(owner)}


def _as_today(saved: Mapping[str, object], base: Recipe) -> dict[str, object]:
    """Return the settings of a run of release 0.1, which described the model by short names, as they are today.

    Args:
        saved: its settings.
        base: the recipe that it goes by.
    """
    given = {key: value for key, value in saved.items() if value is not None}
    recipe = base
    for name, choice in base.CHOICES.items():
        if name in given:
            recipe = choice.apply(recipe, given[name])
    flat = flat_settings(recipe)
    names = dict(leaves(recipe))
    for name, value in saved.items():
        key = recipe.key(name)
        is_left_to_the_model = value is None and name in recipe.SHORT and names.get(key) is not None
        if name in recipe.CHOICES or name.startswith("published_") or is_left_to_the_model:
            continue
        if key in names or name not in recipe.SHORT:
            flat = {place: old for place, old in flat.items() if not place.startswith(f"{key}.")}
            flat[key] = value
    return flat


def _effect(key: str) -> str:
    return "; the learning rate is that of the longer run from here on" if key in LENGTHS else ""
