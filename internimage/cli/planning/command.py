"""`internimage plan`: memory by strategy, steps, time and the command that runs a recipe."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internimage.cli.recipes import recipe_names
from internimage.cli.terminal import JsonOption, choose_device, note, print_fields, print_json, print_table

if TYPE_CHECKING:
    from internimage.training.planning import Plan

_PARTS = ("weights", "gradients", "optimizer", "average", "gathered", "activations", "reserve")


def plan(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="Name of a recipe, or a YAML file with one.", autocompletion=recipe_names
        ),
    ],
    devices: Annotated[int, typer.Option("--devices", min=1, help="GPUs that train together.")],
    memory: Annotated[float, typer.Option("--memory", metavar="GiB", min=0.1, help="Memory of each of them.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, for example data.batch_size=8; repeatable."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", min=1, help="Images of a step, shared out among the devices.", show_default="the recipe's"
        ),
    ] = None,
    interconnect: Annotated[
        float | None,
        typer.Option("--interconnect", metavar="GB/s", help="What a device sends in a second.", show_default=False),
    ] = None,
    images_per_second: Annotated[
        float | None,
        typer.Option("--images-per-second", help="What one device trains in a second.", show_default=False),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the images a second here, with a few steps on made-up images.")
    ] = False,
    images: Annotated[
        int | None,
        typer.Option("--images", min=1, help="Images of the training set.", show_default="those of the published data"),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option("--classes", min=1, help="Classes of the data.", show_default="those of the published data"),
    ] = None,
    reserve: Annotated[
        float, typer.Option("--reserve", metavar="GiB", min=0, help="Memory for driver, libraries and communication.")
    ] = 1.5,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="PNG", help="Draw the memory of each strategy.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Plan a run before it is paid for.

    What a device holds under each strategy, with and without activation checkpointing; what fits; steps, time,
    communication, and the command to run. Nothing is trained but with --measure.
    """
    if measure and images_per_second is not None:
        raise typer.BadParameter("give it, or let it be measured", param_hint="--images-per-second")
    if interconnect is not None and devices == 1:
        raise typer.BadParameter("one device sends nothing; --devices 2 or more do", param_hint="--interconnect")
    from internimage.training.planning import plan as make_plan

    overrides = [*(settings or ()), *_batch(recipe, settings or [], batch, devices)]
    found = make_plan(
        recipe,
        devices=devices,
        memory_gib=memory,
        overrides=overrides,
        interconnect_gb=interconnect,
        images_per_second=images_per_second,
        measure_on=choose_device("auto") if measure else None,
        images=images,
        num_classes=classes,
        reserve_gib=reserve,
    )
    if plot is not None:
        from internimage.training.planning.drawing import draw_plan

        draw_plan(found, plot)
    if as_json:
        print_json(found.to_dict(overrides))
    else:
        _show(found, overrides)


def _batch(recipe: str, settings: list[str], images: int | None, devices: int) -> list[str]:
    """Return the setting of the images of a device that make a step of `images`.

    Raises:
        typer.BadParameter: they cannot be shared out evenly, or the settings say otherwise.
    """
    if images is None:
        return []
    if any(text.partition("=")[0].strip() in ("data.batch_size", "batch_size") for text in settings):
        raise typer.BadParameter("data.batch_size is set, too; give one of them", param_hint="--batch")
    from internimage.training import recipe as find

    accumulation = find(recipe).with_overrides(settings).optimizer.accumulation_steps
    share, rest = divmod(images, devices * accumulation)
    if rest or not share:
        raise typer.BadParameter(
            f"{images} images do not divide among {devices} devices x {accumulation} batches of a step; the nearest "
            f"numbers are {max(share, 1) * devices * accumulation} and {(share + 1) * devices * accumulation}",
            param_hint="--batch",
        )
    return [f"data.batch_size={share}"]


def _show(found: Plan, overrides: list[str]) -> None:
    """Print a plan as tables."""
    gib = 2**30
    rows = []
    for option in found.options:
        parts = [f"{getattr(option.memory, part) / gib:.2f}" for part in _PARTS]
        seconds = found.seconds_of_sending(option)
        sent = f"{option.sent / 1e9:.2f}" + ("" if seconds is None else f" ({seconds:.2f} s)")
        fits = "yes" if option.fits else "no"
        checkpointing = "yes" if option.checkpointing else "no"
        total = f"{option.memory.total / gib:.2f}"
        host = f"{option.host / gib:.2f}" if option.host else ""
        rows.append([option.strategy.name, checkpointing, fits, total, *parts, host, sent])
    columns = ["strategy", "checkpointing", "fits", "total", *_PARTS, "host", "sent, GB"]
    print_table(columns, rows, right=",".join(columns[3:]), min_width=150)
    note("GiB of a device: `host` lies in the machine's memory, `sent` is what a device sends in a step")
    recipe, counts, speed = found.recipe, found.counts, found.images_per_second
    seconds, command = found.seconds, found.command(overrides)
    print_fields(
        {
            "parameters": f"{counts.parameters:,}",
            "precision": recipe.run.precision,
            "images of a step": f"{found.global_batch} ({recipe.data.batch_size} x {found.devices} devices x "
            f"{recipe.optimizer.accumulation_steps} batches)",
            "highest learning rate": f"{found.highest_lr:.3g}",
            "steps": "not known without --images" if found.steps is None else f"{found.steps:,}",
            "images a second": None if speed is None else f"{speed * found.devices:.4g} on {found.devices} devices",
            "time": "" if seconds is None else str(datetime.timedelta(seconds=round(seconds))),
            "to run": command or _no_command(found),
        }
    )
    for text in found.assumptions:
        note(f"assumed: {text}")


def _no_command(found: Plan) -> str:
    """Return what to do where nothing fits that can be run."""
    others = ", ".join(dict.fromkeys(option.strategy.name for option in found.options if option.fits))
    way = "take a smaller data.batch_size, more devices, or devices with more memory"
    return f"{others} would fit, which `internimage train` does not run; {way}" if others else f"nothing fits; {way}"
