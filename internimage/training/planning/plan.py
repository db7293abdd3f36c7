"""A recipe, devices and their memory to what fits, how long it takes and the command that runs it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from internimage.checkpoints.catalog import row_of_recipe
from internimage.recipe import Recipe
from internimage.training.planning.result import Option, Plan
from internimage.training.planning.speed import training_speed
from internimage.training.planning.step import (
    Activations,
    Precision,
    activations,
    count,
    head_memory,
)
from internimage.training.planning.strategies import (
    DEEPSPEED_BESIDE,
    STRATEGIES,
    Load,
    host_memory,
    memory_in_validation,
    memory_of,
    sent_per_step,
)
from internimage.training.recipes import recipe as find_recipe

GIB, GB = 2**30, 10**9
RESERVE_GIB = 1.5
# Images that the published recipes train on, by the data of their row in the catalog.
TRAINING_IMAGES = {
    "ImageNet-1K": 1_281_167,
    "iNaturalist-2018": 437_513,
    "Fashion-MNIST": 60_000,
    "COCO-2017": 117_266,
    "LVIS v1": 100_170,
    "CrowdHuman": 15_000,
    "ADE20K": 20_210,
    "Cityscapes": 2_975,
}


def plan(
    recipe: Recipe | str,
    *,
    devices: int,
    memory_gib: float,
    overrides: Sequence[str] = (),
    interconnect_gb: float | None = None,
    images_per_second: float | None = None,
    measure_on: torch.device | None = None,
    images: int | None = None,
    num_classes: int | None = None,
    reserve_gib: float = RESERVE_GIB,
) -> Plan:
    """Return what a run of a recipe will need; nothing is trained.

    Args:
        recipe: a recipe, or what `internimage.training.recipe` takes.
        devices: that train together.
        memory_gib: of each device.
        overrides: "section.key=value" texts, see `Recipe.with_overrides`.
        interconnect_gb: GB a second that a device sends.
        images_per_second: that one device trains.
        measure_on: a device that measures them with a few steps on made-up images.
        images: of the training set; None takes those of the published data.
        num_classes: of the data; None takes those of the published data.
        reserve_gib: of each device that nothing counts: driver, libraries, communication.

    Raises:
        UnknownName: no such recipe or setting.
        ValueError: a number is out of range, or the memory does not hold the parameters once.

    Example:
        >>> found = plan("internimage_pico_fashion", devices=2, memory_gib=8)
        >>> found.global_batch, found.counts.parameters, found.steps
        (256, 1337104, 5616)
        >>> found.command()
        'internimage train internimage_pico_fashion --data DATA --out runs/internimage_pico_fashion --processes 2'
    """
    _check(devices, memory_gib, reserve_gib, interconnect_gb, images_per_second)
    chosen = (find_recipe(recipe) if isinstance(recipe, str) else recipe).with_overrides(overrides)
    notes = [] if chosen.run.precision != "auto" else ["run.precision=auto is bf16, as GPUs have it"]
    chosen = chosen.with_values({"run.precision": "bf16"}) if chosen.run.precision == "auto" else chosen
    row = row_of_recipe(chosen.name)
    num_classes = num_classes or (row.num_classes if row and row.num_classes else None)
    if num_classes is None:
        num_classes = 1000
        notes.append("1000 classes (--classes)")
    counts = count(chosen, num_classes)
    if counts.parameters * 4 > memory_gib * GIB:
        raise ValueError(
            f"{memory_gib:g} GiB do not hold the {counts.parameters:,} parameters of {chosen.name} once (at least "
            f"{counts.parameters * 4 / GIB:.2f} GiB); give devices with more memory, or take a smaller backbone"
        )
    if images is None and row is not None:
        images = next((size for name, size in TRAINING_IMAGES.items() if row.dataset.startswith(name)), None)
        notes += [f"{images:,} training images, those of {row.dataset} (--images)"] if images else []
    load = Load(
        counts,
        devices,
        is_half=chosen.run.precision != "fp32",
        moments=2 if chosen.optimizer.name == "adamw" else 1,
        has_average=chosen.ema.decay > 0,
        accumulation=chosen.optimizer.accumulation_steps,
        reserve=round(reserve_gib * GIB),
        compresses=chosen.parallel.gradient_compression != "none",
    )
    steps, highest = _schedule(chosen, images, devices)
    if measure_on is not None:
        images_per_second = training_speed(chosen, num_classes, measure_on)
        notes.append(
            f"{images_per_second:.4g} images a second, measured on this machine's {measure_on} on made-up images"
        )
    return Plan(
        recipe if isinstance(recipe, str) else chosen.name,
        chosen,
        devices,
        round(memory_gib * GIB),
        counts,
        _options(chosen, load, num_classes, round(memory_gib * GIB)),
        highest,
        steps,
        images_per_second,
        None if interconnect_gb is None else interconnect_gb * GB,
        (*notes, *_assumptions(chosen, devices, reserve_gib)),
    )


def _check(devices: int, memory_gib: float, reserve_gib: float, *rates: float | None) -> None:
    if devices < 1:
        raise ValueError(f"devices must be at least 1, given {devices}")
    if not 0 <= reserve_gib < memory_gib < math.inf:
        raise ValueError(f"the memory of a device must exceed the reserve of {reserve_gib:g} GiB, given {memory_gib:g}")
    for rate in rates:
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"images and GB a second must be positive, given {rate:g}")


def _schedule(recipe: Recipe, images: int | None, devices: int) -> tuple[int | None, float]:
    """Return the steps of a run, None where the images are not known, and its highest rate."""
    batch, accumulation = recipe.data.batch_size * devices, recipe.optimizer.accumulation_steps
    per_epoch = None if images is None else images // batch // accumulation
    if per_epoch == 0:
        raise ValueError(
            f"{images:,} images do not fill one step of {devices} devices x {recipe.data.batch_size} images x "
            f"{accumulation} batches; lower data.batch_size, optimizer.accumulation_steps or the number of devices"
        )
    schedule = recipe.rates(per_epoch or 1000, world=devices)
    total = schedule.total_steps
    highest = max(schedule.lr(step) for step in range(0, total, max(1, total // 1000)))
    counts_steps = recipe.rates(1).total_steps == recipe.rates(2).total_steps
    return total if per_epoch or counts_steps else None, highest


def _options(recipe: Recipe, load: Load, num_classes: int, memory: int) -> tuple[Option, ...]:
    """Return each strategy without and with checkpointing."""
    head = head_memory(recipe, num_classes, autocast=load.is_half)
    found: dict[tuple[Precision, bool], Activations] = {}
    options = []
    for strategy in STRATEGIES:
        if (strategy.name == "one device") != (load.devices == 1):
            continue
        precision = Precision(torch.float32, autocast=load.is_half)
        for checkpointing in (False, True):
            key = (precision, checkpointing)
            if key not in found:
                found[key] = activations(recipe, head, precision, checkpointing=checkpointing)
            held = dataclasses.replace(memory_of(strategy, load), activations=found[key].alone)
            if load.devices == load.accumulation == 1:  # gradients come while activations go
                held = dataclasses.replace(held, gradients=found[key].with_gradients - found[key].alone)
            host, sent = host_memory(strategy, load), sent_per_step(strategy, load)
            fits = max(held.total, memory_in_validation(strategy, load)) <= memory
            options.append(Option(strategy, checkpointing, held, host, sent, fits))
    return tuple(options)


def _assumptions(recipe: Recipe, devices: int, reserve_gib: float) -> tuple[str, ...]:
    """Return what a plan takes for granted."""
    found = [
        "activations are those of torch's own layers and of the operators here, counted tensor by tensor without "
        "running the backbone; the kernels for GPUs keep less",
        "the head is run once on made-up images with made-up ground truth; its memory grows with the images of a "
        "batch, and with their pixels beyond those of 800 x 1344",
        f"{reserve_gib:g} GiB of a device are for driver, libraries and communication (--reserve)",
    ]
    if devices > 1:
        found += [
            f"DeepSpeed holds {DEEPSPEED_BESIDE} bytes a parameter beside what is known of it, fitted to the "
            "published memory of InternImage-H",
            "DeepSpeed's buckets have their default sizes; fsdp gathers block by block, in full precision, and for a "
            "validation the whole model, which must fit beside the shards, too",
            "the running average is split as the moments are, and lies where they do",
            "devices send by rings, and nothing is sent while they compute",
        ]
    if recipe.run.precision != "fp32":
        found.append("weights are float32 and computed under autocast; DeepSpeed gathers and sends them so")
    return tuple(found)
