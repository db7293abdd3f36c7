"""`internimage recipe`, `train --list` and `train RECIPE --show`: what can be trained, and with which settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from internimage.cli.terminal import JsonOption, note, print_json, print_table, stdout
from internimage.errors import UnknownName

if TYPE_CHECKING:
    from internimage.training import Recipe

WIDE = 160  # columns of a terminal that has room for everything


def recipe_names(incomplete: str) -> list[str]:
    """Complete the name of a recipe."""
    from internimage.training import RECIPES

    return [name for name in RECIPES if name.startswith(incomplete)]


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
    from internimage.settings import as_text, to_plain_value

    names = recipe.names()
    if as_json:
        described = {
            name: {"value": to_plain_value(recipe.value(name)), "meaning": recipe.meaning(name)} for name in names
        }
        print_json({"name": recipe.name, "task": recipe.task, "settings": described})
        return
    rows = [[name, as_text(recipe.value(name)), recipe.meaning(name)] for name in names if name != "name"]
    print_table(["setting", "value", "meaning"], rows)
    note("change one with --set SETTING=VALUE")


def print_recipe(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe.", autocompletion=recipe_names)],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, for example schedule.epochs=3; repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print a recipe as YAML, for `internimage train FILE.yaml`."""
    from internimage.training.recipes import document, recipe, to_yaml

    try:
        chosen = recipe(name).with_overrides(settings or ())
    except UnknownName:
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from error
    if as_json:
        print_json(document(chosen))
    else:
        typer.echo(to_yaml(chosen), nl=False)


def _summary(recipe: Recipe) -> dict[str, Any]:
    from internimage.training.recipes import published_checkpoint, published_metrics

    schedule, entry = vars(recipe)["schedule"], published_checkpoint(recipe.name)
    is_long = not schedule.epochs
    metrics = published_metrics(recipe.name)
    return {
        "name": recipe.name,
        "task": recipe.task,
        "start": recipe.model.weights or recipe.model.start_backbone or "random weights",
        "length": f"{schedule.iterations} steps" if is_long else f"{schedule.epochs} epochs",
        "published": ", ".join(f"{name} {value:.1f}" for name, value in metrics.items()),
        "checkpoint": None if entry is None else entry.name,
    }
