"""The engine of several processes: accelerate shares out the work, torch or DeepSpeed moves what they exchange."""

from __future__ import annotations

import contextlib
import datetime
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from internimage import parallel
from internimage.errors import MissingExtra
from internimage.recipe import Recipe
from internimage.training.device import Engine, ModuleT
from internimage.training.parallel.layers import see_whole_batch
from internimage.training.setup import training_of

if TYPE_CHECKING:
    from accelerate import Accelerator  # pyright: ignore[reportMissingImports]  # an extra


class ParallelEngine(Engine):
    """One of several processes, see `Engine`.

    Args:
        device: where this process computes.
        recipe: precision, accumulation, and how the processes work together.

    Raises:
        MissingExtra: accelerate is not installed.
    """

    accelerate_scales_loss: ClassVar[bool] = True

    def __init__(self, device: torch.device, recipe: Recipe) -> None:
        super().__init__(device, recipe)
        scales = self.accelerate_scales_loss and recipe.run.precision == "fp16"
        self.accelerator = _accelerator(device, recipe, "fp16" if scales else "no")
        self.device = self.accelerator.device
        parallel.join(timeout_of(recipe))

    def prepare(self, losses: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Return losses and optimizer that exchange gradients with the other processes."""
        return self.accelerator.prepare(losses, optimizer)

    def adapt(self, model: ModuleT) -> ModuleT:
        """Return the model on the device, with layers that see the whole batch."""
        model = super().adapt(model)
        see_whole_batch(model, self.device)
        return model

    @contextlib.contextmanager
    def accumulating(self, losses: nn.Module) -> Iterator[None]:
        """Exchange gradients within the block at the last batch of a step only."""
        with self.accelerator.accumulate(losses):
            yield

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the loss of one of the batches of a step."""
        self.accelerator.backward(loss)

    def step(self, optimizer: Optimizer, parameters: Iterable[nn.Parameter], *, clip_norm: float) -> Tensor | None:
        """Limit the gradient norm (0: no limit), move the weights and clear the gradients; return what is limited."""
        norm = self.accelerator.clip_grad_norm_(parameters, clip_norm) if clip_norm else None
        optimizer.step()
        optimizer.zero_grad()
        return norm

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """What keeps gradients in fp16 from vanishing."""
        return self.accelerator.scaler or super().scaler


def timeout_of(recipe: Recipe) -> datetime.timedelta:
    """Return how long a process waits for the others before it fails."""
    return datetime.timedelta(minutes=recipe.parallel.timeout_minutes)


def _accelerator(device: torch.device, recipe: Recipe, precision: str) -> Accelerator:
    try:
        from accelerate import Accelerator  # pyright: ignore[reportMissingImports]  # an extra
        from accelerate.utils import (  # pyright: ignore[reportMissingImports]  # an extra
            DDPCommunicationHookType,
            DistributedDataParallelKwargs,
            InitProcessGroupKwargs,
        )
    except ImportError as error:
        raise MissingExtra("accelerate", "train", "training in several processes") from error
    ddp = DistributedDataParallelKwargs(
        find_unused_parameters=training_of(recipe).may_skip_parameters,
        gradient_as_bucket_view=True,
        comm_hook=DDPCommunicationHookType(recipe.parallel.gradient_compression.replace("none", "no")),
    )
    # Weights of depthwise convolutions in channels-last order; it costs one copy of a few numbers.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision,  # of bf16 the losses take care
        gradient_accumulation_steps=recipe.optimizer.accumulation_steps,
        kwargs_handlers=[ddp, InitProcessGroupKwargs(timeout=timeout_of(recipe))],
    )
