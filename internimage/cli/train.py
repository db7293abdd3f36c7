"""`internimage train`: a recipe on a data set, resumable."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internimage.cli.terminal import JsonOption, choose_device, note, print_fields, print_json, stderr

if TYPE_CHECKING:
    from internimage.training import Recipe


def recipe_names(incomplete: str) -> list[str]:
    """Complete the name of a recipe."""
    from internimage.training import RECIPES

    return [name for name in RECIPES if name.startswith(incomplete)]


def train(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="Name of a recipe.", autocompletion=recipe_names, show_default=False),
    ],
    data: Annotated[Path, typer.Option("--data", help="Folder of the data set.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.", show_default=False)],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, for example schedule.epochs=3; repeatable."),
    ] = None,
    backbone_weights: Annotated[
        str | None,
        typer.Option(
            "--backbone-weights",
            metavar="NAME_OR_FILE",
            help="What a detector or segmentor takes its backbone from, instead of the recipe's start weights.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda, or auto: the accelerator when there is one.")
    ] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train a model by a recipe.

    Ctrl-C saves the run; the same command with --resume goes on with it.
    """
    if not data.exists():
        raise typer.BadParameter(f"there is no folder {data}", param_hint="--data")
    from internimage import training

    chosen = training.recipe(recipe)
    try:
        chosen = chosen.with_overrides([*_start(chosen, backbone_weights), *(settings or ())])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from error
    place = None if device == "auto" else choose_device(device)
    if not stderr().is_terminal:  # a log file shows no bar
        logging.getLogger("internimage.training").setLevel(logging.INFO)
    result = training.train(chosen, data=data, out=out, resume=resume, device=place)
    summary = result.to_dict()
    if as_json:
        print_json(summary)
    else:
        best = result.best_value
        fields = {
            "validations": len(result.history),
            f"best {result.metric.removeprefix('val_')}": None if best is None else f"{best:.2%}",
            "best weights": result.best,
            "last weights": result.last,
        }
        print_fields(fields, title=str(out))
    if result.interrupted:
        note(f"interrupted and saved; the same command with --resume goes on with {out}")
        raise typer.Exit(1)


def _start(recipe: Recipe, backbone_weights: str | None) -> list[str]:
    """Return the overrides that let a run start from a backbone."""
    if backbone_weights is None:
        return []
    if recipe.task == "classification":
        raise typer.BadParameter(
            f"{recipe.name} trains a classifier, which starts from a whole model; write --set "
            f"model.weights={backbone_weights}",
            param_hint="--backbone-weights",
        )
    return ["model.weights=none", f"model.backbone_weights={backbone_weights}"]
