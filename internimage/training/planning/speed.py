"""How fast a recipe trains here."""

from __future__ import annotations

import time

import torch

from internimage.recipe import Recipe
from internimage.training.device import Engine
from internimage.training.optim import build_optimizer, param_groups
from internimage.training.planning.step import classes
from internimage.training.setup import training_of


def training_speed(recipe: Recipe, num_classes: int, device: torch.device, *, steps: int = 3) -> float:
    """Train on made-up images and return the images a second.

    Args:
        recipe: what is trained, at its batch size and precision.
        num_classes: of the model.
        device: where.
        steps: timed ones, after one to warm up.
    """
    task, engine = training_of(recipe), Engine(device, recipe)
    model = engine.adapt(task.build(recipe, classes(num_classes)).train())
    batch = task.example_batch(recipe, model, recipe.data.batch_size)
    groups = param_groups(model, recipe.layer_rules(), depths=recipe.model.config.backbone.depths)
    optimizer, started = build_optimizer(groups, recipe.optimizer), 0.0
    for step in range(steps + 1):
        if step == 1:
            started = time.perf_counter()
        with engine.autocast():
            losses = task.loss(recipe, model, batch, device)
        engine.backward(sum(losses.values(), torch.zeros((), device=device)))
        engine.step(optimizer, model.parameters(), clip_norm=recipe.optimizer.clip_norm)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return steps * recipe.data.batch_size / (time.perf_counter() - started)
