"""Parameters, gradients, moments and running average in shards, one on each process (FSDP2 of torch).

A block of the backbone XX
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from internimage import parallel
from internimage.backbones.blocks import Block
from internimage.checkpoints.pieces import Piece, Stored, changed
from internimage.flow import AnyModel
from internimage.recipe import EmaSettings, Recipe
from internimage.training.device import Engine, HeldStates, Losses, ModuleT, PieceStates, StoredStates, with_moments
from internimage.training.ema import Average, decay_at
from internimage.training.parallel.engine import ParallelEngine
from internimage.training.parallel.layers import see_whole_batch


class ShardedEngine(ParallelEngine):
    """One of several processes that keep a shard of everything, see `Engine`."""

    def __init__(self, device: torch.device, recipe: Recipe) -> None:
        super().__init__(device, recipe)
        self._mesh = init_device_mesh(self.device.type, (parallel.world(),))
        self._offload: OffloadPolicy = OffloadPolicy()
        if recipe.parallel.offload:
            self._offload = CPUOffloadPolicy(pin_memory=self.device.type != "cpu")
        self._batches = 0
        self._hollow: nn.Module | None = None  # the model without the values of its parameters

    def adapt(self, model: ModuleT) -> ModuleT:
        """Return the model with layers that see the whole batch, in the memory of the host until it is sharded."""
        see_whole_batch(model, self.device)
        hollow: dict[int, object] = {
            id(parameter): nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
            for parameter in model.parameters()
        }
        self._hollow = copy.deepcopy(model, hollow).eval()
        return model

    def shard(self, losses: Losses) -> None:
        """Replace the parameters by shards on the device: those of each block, then the others."""
        for module in losses.modules():
            if isinstance(module, Block):
                fully_shard(module, mesh=self._mesh, offload_policy=self._offload)
        fully_shard(losses, mesh=self._mesh, offload_policy=self._offload)

    def prepare(self, losses: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Return both as they are: the shards know what to exchange."""
        return losses, optimizer

    @contextlib.contextmanager
    def accumulating(self, losses: nn.Module) -> Iterator[None]:
        """Exchange gradients within the block at the last batch of a step only."""
        assert isinstance(losses, FSDPModule)
        self._batches += 1
        losses.set_requires_gradient_sync(self._batches % self.batches_per_step == 0)
        yield

    autocast, backward, step = Engine.autocast, Engine.backward, Engine.step

    def average(self, model: nn.Module, settings: EmaSettings) -> ShardedAverage:
        """Return the running average of the shards."""
        return ShardedAverage(model, settings)

    def delivered(self, model: AnyModel, average: Average | None) -> AnyModel:
        """Return a whole copy of the model, or of its average, on the device; all processes call this."""
        return self._whole(model, average, self.device)

    def written(self, model: AnyModel, average: Average | None) -> AnyModel:
        """Return the same in the memory of the host, for the first process; the others get no values."""
        return self._whole(model, average, torch.device("cpu" if parallel.rank() == 0 else "meta"))

    def _whole(self, model: AnyModel, average: Average | None, place: torch.device) -> AnyModel:
        assert average is None or isinstance(average, ShardedAverage)
        assert self._hollow is not None  # the model was adapted
        whole = copy.deepcopy(self._hollow)
        values = model.state_dict() if average is None else average.values
        layouts = whole.state_dict()
        gathered = {name: _laid_out(self._gathered(value).to(place), layouts[name]) for name, value in values.items()}
        whole.load_state_dict(gathered, assign=True)
        return cast("AnyModel", whole)

    def own_states(self, model: nn.Module, average: Average | None, optimizer: Optimizer) -> HeldStates:
        """Return the states of what this process keeps: its shards."""
        return changed(super().own_states(model, average, optimizer), _local)

    def pieces(self, model: nn.Module, average: Average | None, optimizer: Optimizer) -> PieceStates:
        """Return the shards of this process; what is not sharded is the first one's."""
        return cast("PieceStates", changed(super().own_states(model, average, optimizer), _piece))

    def _gathered(self, value: Tensor) -> Tensor:
        moved = value.detach().to(self.device)
        return moved.full_tensor() if isinstance(moved, DTensor) else moved

    def restore(self, model: nn.Module, average: Average | None, optimizer: Optimizer, stored: StoredStates) -> None:
        """Take over what `pieces` of any engine returned; each process reads its shards."""
        _take_over(model.state_dict(), stored["model"])
        if average is not None:
            assert (
                isinstance(average, ShardedAverage) and stored["ema"] is not None
            )  # the settings are those of the run
            average.take_over(stored["ema"])
        optimizer.load_state_dict(with_moments(stored, optimizer, _like))


class ShardedAverage:
    """The running average of shards, each of which stays where it is."""

    def __init__(self, model: nn.Module, settings: EmaSettings) -> None:
        self._settings, self._count = settings, 1
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move towards the present weights; counters are copied."""
        decay = decay_at(self._count, self._settings)
        for name, present in model.state_dict().items():
            kept = _local(self.values[name])
            if kept.is_floating_point():
                kept.lerp_(_local(present), 1 - decay)
            else:
                kept.copy_(_local(present))
        self._count += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return what `load_state_dict` takes, with the names that torch gives an average."""
        values = {f"module.{name}": value for name, value in self.values.items()}
        return {"n_averaged": torch.tensor(self._count), **values}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned, or whole tensors."""
        self.take_over({name: Stored(value) for name, value in state.items()})

    def take_over(self, state: Mapping[str, Stored]) -> None:
        """Take over tensors from files."""
        self._count = int(state["n_averaged"].whole())
        _take_over(self.values, {name: state[f"module.{name}"] for name in self.values})


def _laid_out(value: Tensor, like: Tensor) -> Tensor:
    """Return a tensor with the memory layout of another one of its shape."""
    if value.stride() == like.stride():
        return value
    return torch.empty_strided(like.shape, like.stride(), dtype=value.dtype, device=value.device).copy_(value)


def _local(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value


def _piece(value: Tensor) -> Piece:
    """Return the rows of this process, or, for the first one, what is whole everywhere."""
    if not isinstance(value, DTensor):
        return Piece.of(value, kept=parallel.rank() == 0)
    return Piece(value.to_local().detach().contiguous().view(-1), _start(value), tuple(value.shape))


def _start(value: DTensor) -> int:
    """Return where the rows of this process start in the whole tensor, in values."""
    rows = -(-value.shape[0] // parallel.world())
    return min(parallel.rank() * rows, value.shape[0]) * math.prod(value.shape[1:])


def _like(stored: Stored, other: Tensor) -> Tensor:
    """Return a tensor in shards as another one is; what has another shape, such as a counter, is read whole."""
    if not isinstance(other, DTensor) or stored.shape != tuple(other.shape):
        return stored.whole()
    own = other.to_local()
    rows = stored.part(_start(other), own.numel()).view(own.shape).to(own.device)
    return DTensor.from_local(
        rows, other.device_mesh, other.placements, run_check=False, shape=other.shape, stride=other.stride()
    )


@torch.no_grad()
def _take_over(own: Mapping[str, Tensor], stored: Mapping[str, Stored]) -> None:
    for name, value in own.items():
        _local(value).copy_(_local(_like(stored[name], value)))
