"""Where and how a step runs: device, precision, gradients.

The training loop talks to the hardware through this class alone; `training.parallel.engine` has it for many processes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from typing import Any, TypedDict, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from internimage import parallel
from internimage.checkpoints.pieces import Piece, Stored, changed, whole
from internimage.flow import AnyModel
from internimage.recipe import EmaSettings, Recipe
from internimage.training.ema import Average, build_ema

logger = logging.getLogger(__name__)
RecipeT = TypeVar("RecipeT", bound=Recipe)
ModuleT = TypeVar("ModuleT", bound=nn.Module)
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
# What oneDNN may be limited to by ONEDNN_MAX_CPU_ISA and still multiply in bfloat16.
_ONEDNN_WITH_BF16 = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10_1", "AVX10_2")


def chosen_device(device: torch.device | str | None) -> torch.device:
    """Return a device; None takes the accelerator when there is one."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


class Losses(nn.Module):
    """A model whose forward pass gives its losses, which is what torch shares out among processes.

    Args:
        model: what is trained.
        loss: gives the named losses of a batch.
        context: gives what they are computed in.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any], dict[str, Tensor]],
        context: Callable[[], contextlib.AbstractContextManager[object]],
    ) -> None:
        super().__init__()
        self.model, self._loss, self._context = model, loss, context

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Return the named losses of a batch."""
        with self._context():
            return self._loss(batch)


class HeldStates(TypedDict):
    """The states of what a run trains, in the form of torch."""

    model: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    optimizer: dict[str, Any]


class PieceStates(TypedDict):
    """The same with a piece in place of each tensor: what one of several processes writes of it."""

    model: dict[str, Piece]
    ema: dict[str, Piece] | None
    optimizer: dict[str, Any]


class StoredStates(TypedDict):
    """The same as files hold it: each process reads what it needs of a tensor."""

    model: dict[str, Stored]
    ema: dict[str, Stored] | None
    optimizer: dict[str, Any]


class Engine:
    """One process on one device.

    Args:
        device: where it computes.
        recipe: precision, threads, and batches of a step.
    """

    def __init__(self, device: torch.device, recipe: Recipe) -> None:
        self.device = device
        self.precision = recipe.run.precision
        self.batches_per_step = recipe.optimizer.accumulation_steps
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        if recipe.run.threads:
            torch.set_num_threads(recipe.run.threads)

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """What keeps gradients in fp16 from vanishing; does nothing in other precisions."""
        return self._scaler

    def adapt(self, model: ModuleT) -> ModuleT:
        """Return the model as it is trained, on the device."""
        return model.to(self.device)

    def shard(self, losses: Losses) -> None:
        """Let this process keep a part of the parameters; called before the optimizer takes them."""

    def average(self, model: nn.Module, settings: EmaSettings) -> Average:
        """Return a running average of the weights that starts with the present ones."""
        return build_ema(model, settings)

    def prepare(self, losses: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Return losses and optimizer as the loop uses them."""
        return losses, optimizer

    def delivered(self, model: AnyModel, average: Average | None) -> AnyModel:
        """Return the model that validation measures; all processes call this."""
        if average is None:
            return model
        assert isinstance(average, AveragedModel)
        return cast("AnyModel", average.module)

    def written(self, model: AnyModel, average: Average | None) -> AnyModel:
        """Return the same for the first process to write; all processes call this."""
        return self.delivered(model, average)

    def own_states(self, model: nn.Module, average: Average | None, optimizer: Optimizer) -> HeldStates:
        """Return the states of what this process keeps."""
        ema = None if average is None else average.state_dict()
        return {"model": model.state_dict(), "ema": ema, "optimizer": optimizer.state_dict()}

    def pieces(self, model: nn.Module, average: Average | None, optimizer: Optimizer) -> PieceStates:
        """Return what this one of several processes writes of the state of a run.

        The pieces of all processes make up each tensor once, with the shape and the place in the state that it has when
        a single process trains, so that `restore` of any engine and number of processes reads them.
        """
        own = self.own_states(model, average, optimizer)
        shared = _Shares(own)
        return cast("PieceStates", changed(own, lambda value: Piece.of(value, kept=shared.is_next_own(value))))

    def restore(self, model: nn.Module, average: Average | None, optimizer: Optimizer, stored: StoredStates) -> None:
        """Take over what `pieces` of any engine returned; processes do not wait for one another in it."""
        model.load_state_dict(changed(stored["model"], whole))
        if average is not None:
            assert stored["ema"] is not None  # the settings are those of the run
            average.load_state_dict(changed(stored["ema"], whole))
        optimizer.load_state_dict(with_moments(stored, optimizer, _as_laid_out))

    def accumulating(self, losses: nn.Module) -> contextlib.AbstractContextManager[object]:
        """Return the context of one of the batches of a step."""
        return contextlib.nullcontext()

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context of the forward pass."""
        if self.precision in _AUTOCAST:
            return torch.autocast(self.device.type, dtype=_AUTOCAST[self.precision])
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the loss of one of the batches of a step."""
        self.scaler.scale(loss / self.batches_per_step).backward()

    def step(self, optimizer: Optimizer, parameters: Iterable[nn.Parameter], *, clip_norm: float) -> Tensor | None:
        """Limit the gradient norm (0: no limit), move the weights and clear the gradients; return what is limited."""
        norm = None
        if clip_norm:
            self.scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return norm


class _Shares:
    """Shares out tensors that all processes have among them, about as many bytes to each."""

    def __init__(self, states: HeldStates) -> None:
        self._before, self._total = 0, 0
        changed(states, self._count)

    def _count(self, value: Tensor) -> None:
        self._total += value.nbytes

    def is_next_own(self, value: Tensor) -> bool:
        """Whether the next tensor is written by this process."""
        owner = self._before * parallel.world() // max(self._total, 1)
        self._before += value.nbytes
        return min(owner, parallel.world() - 1) == parallel.rank()


def with_moments(
    stored: StoredStates, optimizer: Optimizer, read: Callable[[Stored, Tensor], Tensor]
) -> dict[str, Any]:
    """Return the state of an optimizer as it takes it.

    Args:
        stored: the state of the run.
        optimizer: what is to go on.
        read: gives a value of the optimizer's state for a parameter.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        index: changed(values, lambda value, index=index: read(value, parameters[index]))
        for index, values in stored["optimizer"]["state"].items()
    }
    return {**stored["optimizer"], "state": moments}


def _as_laid_out(value: Stored, parameter: Tensor) -> Tensor:
    """Return a moment with the memory layout of its parameter, as the optimizer made it."""
    found = value.whole()
    if found.shape != parameter.shape or found.stride() == parameter.stride():
        return found
    return torch.empty_like(parameter, dtype=found.dtype, device=found.device).copy_(found)


def compile_backbone(model: nn.Module, recipe: Recipe, device: torch.device) -> None:
    """Let torch compile the backbone of a model as `run.compile` says; its random numbers stay those of torch.

    Heads and losses stay as they are: what they do depends on the ground truth of each image.

    Args:
        model: what is trained; changed in place, under the same names.
        recipe: every setting of the run.
        device: where it is trained.

    Raises:
        ValueError: nothing on this machine compiles for the device.
    """
    if recipe.run.compile == "false":
        return
    compiler = os.environ.get("CXX") or "g++"
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise ValueError(
            f"run.compile={recipe.run.compile} needs a C++ compiler, and there is no {compiler}; install g++, or name "
            "another one by the environment variable CXX, or train with run.compile=false"
        )
    mode = "default" if recipe.run.compile == "true" else recipe.run.compile
    options = {**torch._inductor.list_mode_options(mode), "fallback_random": True}
    logger.info("compiles the backbone (run.compile=%s), which makes the first steps slow", recipe.run.compile)
    model.get_submodule("backbone").compile(options=options)


def has_bf16_instructions(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 by instructions of its own.

    Where it does not, bfloat16 is converted back and forth: four to fifteen times slower than float32 on a processor
    with AVX2 only.

    Args:
        device: CPU, CUDA or any other.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    is_limited = limit not in ("ALL", "DEFAULT", "") and not limit.startswith(_ONEDNN_WITH_BF16)
    is_wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return is_wide and not is_limited and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def with_precision(recipe: RecipeT, device: torch.device) -> RecipeT:
    """Return the recipe with "auto" decided; warns where a precision of the recipe is slow on this device.

    Args:
        recipe: the recipe.
        device: where it is trained.
    """
    precision, is_fast = recipe.run.precision, has_bf16_instructions(device)
    if precision == "auto":
        precision = "bf16" if is_fast else "fp32"
        reason = "which this device computes fast" if is_fast else "because this device has no instructions for bf16"
        logger.info("trains in %s, %s (run.precision)", precision, reason)
        return recipe.with_values({"run.precision": precision})
    if precision == "bf16" and not is_fast:
        logger.warning(
            "run.precision=bf16 is slow here: this device has no instructions for it; run.precision=fp32 is faster"
        )
    return recipe
