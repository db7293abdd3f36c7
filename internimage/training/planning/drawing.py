"""A plan as an image: what fills the memory of a device, by strategy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from internimage.errors import MissingExtra
from internimage.files import replacing
from internimage.training.planning.plan import GIB
from internimage.training.planning.result import Plan
from internimage.training.planning.strategies import Memory


def draw_plan(plan: Plan, path: Path) -> None:
    """Draw stacked bars as a PNG: one for each strategy, without and with activation checkpointing.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "train", "the image of a plan (--plot)") from error
    rows = plan.options[::-1]
    figure = Figure(figsize=(10, 1.5 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(rows)
    for part in dataclasses.fields(Memory):
        sizes = [getattr(row.memory, part.name) / GIB for row in rows]
        axes.barh(range(len(rows)), sizes, left=left, label=part.name)
        left = [start + size for start, size in zip(left, sizes, strict=True)]
    names = [f"{row.strategy.name}{', checkpointing' if row.checkpointing else ''}" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.axvline(plan.memory / GIB, color="black", linestyle="--", label="memory of a device")
    axes.set(xlabel="GiB of a device", title=f"{plan.recipe.name}, {plan.devices} x {plan.memory / GIB:g} GiB")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
