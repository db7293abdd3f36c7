"""`internimage train --list` and `internimage train RECIPE --show`: what can be trained, and with which settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from internimage.cli.terminal import note, print_json, print_table, stdout

if TYPE_CHECKING:
    from internimage.training import Recipe

WIDE = 160  # columns of a terminal that has room for everything


def print_recipes(*, as_json: bool) -> None:
    """Show every recipe: what it trains, what its run starts from, how long it is, what it gave."""
    from internimage.training import RECIPES

    rows = [_summary(recipe) for recipe in RECIPES.values()]
    if as_json:
        print_json(rows)
        return
    columns = ["name", "task", "start", "length", "published"] if stdout().width >= WIDE else ["name", "length"]
    print_table(columns, [[row[column] for column in columns] for row in rows])
    note("`internimage train RECIPE --show` lists the settings of one of them")


def print_settings(recipe: Recipe, *, as_json: bool) -> None:
    """Show the settings of a recipe: values, and what they mean."""
    from internimage.training.overrides import setting, setting_names
    from internimage.training.setting_docs import meaning

    names = setting_names(type(recipe))
    if as_json:
        described = {name: {"value": setting(recipe, name), "meaning": meaning(recipe, name)} for name in names}
        print_json({"name": recipe.name, "task": recipe.task, "settings": described})
        return
    rows = [[name, _text(setting(recipe, name)), meaning(recipe, name)] for name in names if name != "name"]
    print_table(["setting", "value", "meaning"], rows)
    note("change one with --set SETTING=VALUE")


def _summary(recipe: Recipe) -> dict[str, Any]:
    from internimage.training.published import published_checkpoint

    model, schedule = vars(recipe)["model"], vars(recipe)["schedule"]
    source = model.weights or getattr(model, "backbone_weights", None)
    is_long = not schedule.epochs
    figures = {key: value for key, value in vars(recipe).items() if key.startswith("published_") and value is not None}
    entry = published_checkpoint(recipe.name)
    return {
        "name": recipe.name,
        "task": recipe.task,
        "start": source or "random weights",
        "length": f"{schedule.iterations} steps" if is_long else f"{schedule.epochs} epochs",
        "published": ", ".join(f"{key.removeprefix('published_')} {100 * value:.1f}" for key, value in figures.items()),
        "checkpoint": None if entry is None else entry.name,
    }


def _text(value: Any) -> str:
    """Return a value as --set takes it."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
