"""Five steps of each kind of model, to be compared between one process and several that share its batches."""

from __future__ import annotations

import contextlib
import dataclasses
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from internimage.training.loop import Trainer
from internimage.training.recipes import recipe
from internimage.types import Images
from tests.training.conftest import TINY
from tests.training.scenes import scene_recipe

STEPS, WHOLE_BATCH = 5, 4
# With everything random switched on.
RANDOM = ("model.drop_path_rate=0.3", "run.seed=3", "schedule.epochs=5", "optimizer.clip_norm=0.5")
SMALLER = tuple(
    f"model.config.head.{name}={value}"
    for name, value in dict(
        channels=32, num_queries=20, encoder_layers=1, encoder_hidden_channels=32, decoder_layers=2, loss_points=200
    ).items()
)
# Images of all sizes, so that those of one process alone need less padding than the whole batch.
DETECTION = (*RANDOM, "augment.shorter_side=24,80", "augment.longer_side=80")


def classifier(*overrides: str) -> Any:
    given = recipe("internimage_pico_fashion")
    size = "data.size=64"  # so that a process can also take a single image
    return given.with_overrides([*TINY, *RANDOM, size, "model.weights=none", "model.start=recipe", *overrides])


CASES: dict[str, tuple[str, Callable[[], Any]]] = {
    "classifier": ("fashion", classifier),
    "classifier_mixed": (
        "fashion",
        lambda: classifier(
            *("augment.kind=crop", "augment.rand_augment=rand-m9", "augment.mixup=0.8", "augment.cutmix=1"),
            *("data.workers=0", "model.config.backbone.drop_rate=0.1"),
        ),
    ),
    "mask_rcnn": ("scenes", lambda: scene_recipe("mask_rcnn", *DETECTION)),
    "dino": ("scenes", lambda: scene_recipe("dino", *DETECTION)),
    "upernet": ("scenes", lambda: scene_recipe("upernet", *RANDOM, "model.config.head.dropout=0.3")),
    "mask2former": ("scenes", lambda: scene_recipe("upernet", "model.architecture=mask2former", *SMALLER, *RANDOM)),
}


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Let everything that is computed in float32 be computed in float64 within the block."""
    to = Images.to

    def raised(self: Images, *place: Any) -> Images:
        moved = to(self, *place)
        return dataclasses.replace(moved, pixels=moved.pixels.double())

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with (
            unittest.mock.patch.object(Images, "to", raised),
            unittest.mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
        ):
            yield
    finally:
        torch.set_default_dtype(before)


def five_steps(name: str, data: Path, out: Path, *, processes: int, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the gradients of the first step and the weights after the last one, by the name of the parameter."""
    kind, made = CASES[name]
    # AdamW divides gradients by their size: what is next to zero (new offsets) would follow the last bit of float32.
    optimizer = () if torch.get_default_dtype() == torch.float64 else ("optimizer.name=sgd",)
    chosen = made().with_overrides([f"data.batch_size={WHOLE_BATCH // processes}", *optimizer, *overrides])
    trainer = Trainer(chosen, data=data / kind, out=out, device="cpu", progress=False)
    gradients: dict[str, torch.Tensor] = {}
    clear = trainer.optimizer.zero_grad

    def remember(*args: Any, **options: Any) -> None:
        if not gradients:
            named = trainer.model.named_parameters()
            gradients.update({key: whole(p.grad).clone() for key, p in named if p.grad is not None})
        clear(*args, **options)

    step = trainer.engine.step

    def remember_of_deepspeed(*args: Any, **options: Any) -> Any:
        """Its gradients are there before the step only, which limits their norm."""
        from deepspeed.utils import safe_get_full_grad

        is_first, named = not gradients, trainer.model.named_parameters()
        found = {key: safe_get_full_grad(p) for key, p in named if p.requires_grad} if is_first else {}
        norm = step(*args, **options)
        limit = min(1.0, chosen.optimizer.clip_norm / (float(norm) + 1e-6))
        gradients.update({key: limit * value for key, value in found.items() if value is not None})
        return norm

    is_zero = chosen.parallel.strategy.startswith("zero")
    watched = (trainer.engine, "step", remember_of_deepspeed) if is_zero else (trainer.optimizer, "zero_grad", remember)
    with unittest.mock.patch.object(*watched):
        trainer.model.train()
        while trainer.step < STEPS:
            epoch, done = divmod(trainer.step, trainer.steps_per_epoch)
            batches = trainer.task.epoch(epoch, start=done)
            for batch in batches:
                trainer._train_step([batch])
                if trainer.step == STEPS:
                    break
    state = {key: value.clone() for key, value in trainer.delivered.state_dict().items()}
    model = (trainer.engine.delivered(trainer.model, None) if is_zero else trainer.model).state_dict()
    model = {key: whole(value) for key, value in model.items()}
    return {"gradients": gradients, "model": model, "average": state}


def whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value
