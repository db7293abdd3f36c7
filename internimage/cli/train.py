"""`internimage train`: a recipe on a data set, resumable."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internimage.cli.data_folder import data_folder
from internimage.cli.recipes import print_recipes, print_settings, recipe_names
from internimage.cli.terminal import JsonOption, choose_device, note, print_fields, print_json
from internimage.options import Start

if TYPE_CHECKING:
    from internimage.training import Recipe, TrainingResult


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]",
            help="Name of a recipe, or a YAML file with one; --resume takes that of the run.",
            autocompletion=recipe_names,
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of the data set; --resume takes that of the run.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run.", show_default=False)] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, with its settings and data.")
    ] = False,
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
    start: Annotated[
        Start | None,
        typer.Option(
            "--start",
            help="published: fine-tune the published model of this name; recipe: train as it was trained; auto: recipe "
            "for the data that it was made for, published for any other.",
            show_default="auto",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda, or auto: the accelerator when there is one.")
    ] = "auto",
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            min=1,
            help="Train in this many processes of this machine, one for each GPU; data.batch_size counts for each.",
            show_default="1",
        ),
    ] = None,
    shows_list: Annotated[bool, typer.Option("--list", help="List the recipes.")] = False,
    shows_settings: Annotated[bool, typer.Option("--show", help="Show the settings of RECIPE, train nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model by a recipe.

    Own data starts from the published model of the recipe's name where there is one. Ctrl-C saves the run; `internimage
    train --resume --out FOLDER` goes on with it.
    """
    logging.getLogger("internimage.training").setLevel(logging.INFO)  # what a run says is part of its progress
    if start is not None:
        settings = [f"model.start={start}", *(settings or ())]
    if shows_list or shows_settings:
        _show(recipe, settings or (), lists=shows_list, as_json=as_json)
        return
    if out is None:
        raise typer.BadParameter("give the folder of the run", param_hint="--out")
    if data is not None:
        data = data_folder(data, "--data")
    from internimage import training

    overrides = list(settings or ())
    asked = overrides
    chosen: Recipe | str | None = recipe
    if recipe is not None:
        known = training.recipe(recipe)
        overrides = asked = [*_start(known, backbone_weights), *overrides]
        if not resume:
            try:
                chosen, overrides = known.with_overrides(overrides), []
            except ValueError as error:
                raise typer.BadParameter(str(error), param_hint="--set") from error
    elif not resume:
        raise typer.BadParameter("a new run needs the name of a recipe", param_hint="RECIPE")
    elif backbone_weights is not None:
        raise typer.BadParameter("a run that goes on has its weights", param_hint="--backbone-weights")
    if data is None and not resume:
        raise typer.BadParameter("a new run needs the folder of its data set", param_hint="--data")
    place = None if device == "auto" else choose_device(device)
    if processes is not None and processes > 1:
        words = [*([recipe] if recipe else []), *(["--data", str(data)] if data else []), "--out", str(out)]
        words += [*(f"--set={text}" for text in asked), *(["--resume"] if resume else [])]
        words += ["--device", device, *(["--json"] if as_json else [])]
        _run_processes(chosen, words, processes, on_cpu=device == "cpu")
        return
    result = training.train(chosen, data=data, out=out, resume=resume, overrides=overrides, device=place)
    _tell(result, out, as_json=as_json)


def _run_processes(chosen: Recipe | str | None, words: Sequence[str], processes: int, *, on_cpu: bool) -> None:
    """Train in several processes, which tell what there is to tell, once the recipe is known to be fit for it."""
    from internimage.launch import launched_processes
    from internimage.training import Recipe
    from internimage.training.parallel.launch import chosen_strategy, train_in_processes

    if isinstance(chosen, Recipe):
        chosen_strategy(chosen)
    if launched_processes() > 1:
        raise typer.BadParameter("torchrun or accelerate launch has started the processes", param_hint="--processes")
    if code := train_in_processes(["train", *words], processes, on_cpu=on_cpu):
        raise typer.Exit(code)


def _tell(result: TrainingResult, out: Path, *, as_json: bool) -> None:
    """Show how a run went; the first of several processes does."""
    from internimage.launch import process_index

    if process_index() > 0:
        pass
    elif as_json:
        print_json(result.to_dict())
    else:
        _print_result(result, out)
    if result.interrupted:
        if process_index() == 0:
            note(f"interrupted and saved; go on with: {_command('train', '--resume', '--out', out)}")
        raise typer.Exit(1 if result.stopped_by is None else 128 + result.stopped_by)


def _show(recipe: str | None, settings: Sequence[str], *, lists: bool, as_json: bool) -> None:
    """List the recipes, or show the settings of one of them with some changed."""
    from internimage import training

    if lists:
        print_recipes(as_json=as_json)
        return
    if recipe is None:
        raise typer.BadParameter("--show needs the name of a recipe; --list gives the names", param_hint="RECIPE")
    chosen = training.recipe(recipe)
    try:
        print_settings(chosen.with_overrides(settings), as_json=as_json)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from error


def _print_result(result: TrainingResult, out: Path) -> None:
    """Show how a run went and what can be done with it."""
    best = result.best_value
    unknown = "not measured: validation had nothing to compare with" if result.history else None
    more = ("--set", "schedule.epochs=N") if not result.interrupted else ()
    fields = {
        "validations": len(result.history),
        f"best {result.metric.removeprefix('val_')}": unknown if best is None else f"{best:.2%}",
        "best weights": result.best,
        "last weights": result.last,
        "to predict": _command("predict", out, "IMAGES"),
        "to go on": _command("train", "--resume", "--out", out, *more),
    }
    print_fields(fields, title=str(out))


def _command(*words: object) -> str:
    """Return a command line of this program, ready to be pasted."""
    return shlex.join(["internimage", *map(str, words)])


def _start(recipe: Recipe, backbone_weights: str | None) -> list[str]:
    """Return the overrides that let a run start from a backbone."""
    if backbone_weights is None:
        return []
    if "model.backbone_weights" not in recipe.names():
        raise typer.BadParameter(
            f"{recipe.name} trains a classifier, which starts from a whole model; write --set "
            f"model.weights={backbone_weights}",
            param_hint="--backbone-weights",
        )
    return ["model.weights=none", f"model.backbone_weights={backbone_weights}"]
