"""ZeRO of DeepSpeed: each process keeps a part of the moments (1), of the gradients (2), of the parameters (3).

Parameters, moments and running average stay float32, as everywhere here; half precisions compute under autocast. What
is measured and saved is gathered: weights and state are those of any other run.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from internimage import parallel
from internimage.checkpoints.pieces import Piece, Stored
from internimage.flow import AnyModel
from internimage.recipe import EmaSettings, Recipe
from internimage.training.device import HeldStates, Losses, ModuleT, PieceStates, StoredStates
from internimage.training.ema import Average
from internimage.training.parallel.deepspeed_setup import imported, settings_of, without_deepspeed_of_accelerate
from internimage.training.parallel.engine import ParallelEngine
from internimage.training.parallel.partitions import PartitionedAverage, Partitions, buffers_of, numbered

logger = logging.getLogger(__name__)
STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}


class ZeroEngine(ParallelEngine):
    """One of several processes whose shares DeepSpeed manages, see `Engine`.

    Args:
        device: where this process computes.
        recipe: every setting of the run.
        stage: of ZeRO, 1 to 3.

    Raises:
        MissingExtra: DeepSpeed is not installed.
    """

    accelerate_scales_loss = False

    def __init__(self, device: torch.device, recipe: Recipe, stage: int) -> None:
        with without_deepspeed_of_accelerate():
            super().__init__(device, recipe)
        self._deepspeed = imported(self.device)
        self._settings = settings_of(recipe, stage, pinned=self.device.type != "cpu")
        self._batches = 0
        self._averages: list[PartitionedAverage] = []
        # Its only gradient tells the scale of the loss whether those of the model were finite.
        self._probe = torch.optim.SGD([nn.Parameter(torch.zeros((), device=self.device))], lr=0.0)

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """What keeps gradients in fp16 from vanishing."""
        return self._scaler

    def adapt(self, model: ModuleT) -> ModuleT:
        """Return the model on the device, and remember how to build another one."""
        model = super().adapt(model)
        without_values: dict[int, Any] = {
            id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
            for parameter in model.parameters()
        }
        self._empty = copy.deepcopy(model, without_values).eval()
        return model

    def average(self, model: nn.Module, settings: EmaSettings) -> PartitionedAverage:
        """Return the running average of what this process keeps, which begins once it is known (`prepare`)."""
        self._averages.append(PartitionedAverage(settings))
        return self._averages[-1]

    def prepare(self, losses: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Return DeepSpeed's engine and the optimizer, whose parameters are now flat parts."""
        assert isinstance(losses, Losses)
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._groups = optimizer.state_dict()["param_groups"]
        of_deepspeed = self._deepspeed.utils.logger
        of_deepspeed.setLevel(logging.ERROR)  # it warns of every optimizer that is not its own
        engine, *_ = self._deepspeed.initialize(
            model=losses, optimizer=optimizer, config=self._settings, dist_init_required=False
        )
        of_deepspeed.setLevel(logging.WARNING)
        self._engine = engine
        self._partitions = Partitions(engine.optimizer, self._parameters)
        for average in self._averages:
            average.begin(self._partitions.flats, buffers_of(losses.model))
        return engine, optimizer

    @contextlib.contextmanager
    def accumulating(self, losses: nn.Module) -> Iterator[None]:
        """Take the step within the block at the last batch of a step only."""
        self._batches += 1
        self._engine.set_gradient_accumulation_boundary(self._batches % self.batches_per_step == 0)
        yield

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the loss of one of the batches of a step."""
        if self.scaler.is_enabled():
            self._engine.optimizer.override_loss_scale(self.scaler.get_scale())
        self._engine.backward(loss)

    def step(self, optimizer: Optimizer, parameters: Iterable[nn.Parameter], *, clip_norm: float) -> Tensor | None:
        """Limit the gradient norm (0: no limit), move the weights and clear the gradients; return what is limited."""
        self._engine.step()
        has_overflow = bool(self._engine.optimizer.overflow)
        if self.scaler.is_enabled():
            self._rescale(has_overflow)
        elif has_overflow:
            logger.warning("DeepSpeed left a step out, because its gradients are not finite")
        if not clip_norm:
            return None
        return torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32)

    def _rescale(self, has_overflow: bool) -> None:
        """Let the scale of the loss follow from the gradients as torch has it."""
        [probe] = self._probe.param_groups[0]["params"]
        probe.grad = torch.full_like(probe, math.inf if has_overflow else 0.0)
        self.scaler.scale(probe.detach())
        self.scaler.unscale_(self._probe)
        self.scaler.update()

    def delivered(self, model: AnyModel, average: Average | None) -> AnyModel:
        """Return a whole copy of the model, or of its average; all processes call this."""
        assert average is None or isinstance(average, PartitionedAverage)
        whole = copy.deepcopy(self._empty).to_empty(device=self.device)
        buffers = dict(model.named_buffers())
        for name, buffer in whole.named_buffers():
            buffer.copy_(buffers[name])
        whole.load_state_dict(self._weights(model, average))
        return cast("AnyModel", whole)

    def _weights(self, model: nn.Module, average: PartitionedAverage | None = None) -> dict[str, Tensor]:
        """Return whole weights and buffers on the device, of the model or of its average."""
        flats = self._partitions.flats if average is None else average.flats
        buffers = buffers_of(model) if average is None else average.buffers
        moved = self._partitions.gathered([flat.to(self.device) for flat in flats])
        index = {id(parameter): i for i, parameter in enumerate(self._parameters)}
        found = {}
        for name, value in model.state_dict(keep_vars=True).items():
            if name in buffers:
                found[name] = buffers[name]
            elif id(value) in index:
                found[name] = moved[index[id(value)]]
            else:  # frozen
                with self._deepspeed.zero.GatheredParameters([value]):
                    found[name] = value.detach().clone()
        return found

    def own_states(self, model: nn.Module, average: Average | None, optimizer: Optimizer) -> HeldStates:
        """Return the states of what this process keeps: its parts, by their index."""
        flats = self._partitions.flats
        moments = {i: dict(optimizer.state.get(flat, {})) for i, flat in enumerate(flats)}
        return {
            "model": {**buffers_of(model), **numbered(flats)},
            "ema": None if average is None else average.state_dict(),
            "optimizer": {"state": moments, "param_groups": self._groups},
        }

    def pieces(self, model: nn.Module, average: Average | None, optimizer: Optimizer) -> PieceStates:
        """Return the parts of this process; what is not cut is the first one's."""
        ema = None
        if average is not None:
            assert isinstance(average, PartitionedAverage)
            values = self._named_pieces(model, average.flats, average.buffers)
            ema = {
                "n_averaged": _of_first(torch.tensor(average.count)),
                **{f"module.{k}": v for k, v in values.items()},
            }
        groups = [
            {key: now.get(key, value) if key != "params" else value for key, value in group.items()}
            for group, now in zip(self._groups, optimizer.param_groups, strict=True)
        ]
        return {
            "model": self._named_pieces(model, self._partitions.flats, buffers_of(model)),
            "ema": ema,
            "optimizer": {"state": self._moments(optimizer), "param_groups": groups},
        }

    def _named_pieces(
        self, model: nn.Module, flats: Sequence[Tensor], buffers: Mapping[str, Tensor]
    ) -> dict[str, Piece]:
        index, cut = {id(parameter): i for i, parameter in enumerate(self._parameters)}, self._partitions.pieces(flats)
        found: dict[str, Piece] = {}
        for name, value in model.state_dict(keep_vars=True).items():
            if id(value) in index:
                found[name] = cut[index[id(value)]]
            else:
                found[name] = _of_first(buffers[name]) if name in buffers else _frozen(value)
        return found

    def _moments(self, optimizer: Optimizer) -> dict[int, dict[str, Any]]:
        """Return pieces of what an optimizer of whole parameters would keep, by their indices."""
        found: dict[int, dict[str, Any]] = defaultdict(dict)
        held = [optimizer.state.get(flat, {}) for flat in self._partitions.flats]
        for name in {key: None for entry in held for key in entry}:
            values = [entry[name] for entry in held]
            if all(isinstance(value, Tensor) and value.ndim for value in values):
                for i, piece in self._partitions.pieces(values).items():
                    found[i][name] = piece
            else:  # a counter
                for number, value in enumerate(values):
                    for i in self._partitions.of_flat(number):
                        found[i][name] = _of_first(value.clone()) if isinstance(value, Tensor) else value
        return dict(sorted(found.items()))

    @torch.no_grad()
    def restore(self, model: nn.Module, average: Average | None, optimizer: Optimizer, stored: StoredStates) -> None:
        """Take over what `pieces` of any engine returned; each process reads its parts, and what it has whole."""
        own = model.state_dict(keep_vars=True)
        for name, value in own.items():
            _take(value, stored["model"][name])
        names = {id(value): name for name, value in own.items()}
        order = dict(enumerate(names[id(parameter)] for parameter in self._parameters))
        self._partitions.take(self._partitions.flats, {i: stored["model"][name] for i, name in order.items()})
        if average is not None:
            assert isinstance(average, PartitionedAverage) and stored["ema"] is not None
            average.count = int(stored["ema"]["n_averaged"].whole())
            self._partitions.take(average.flats, {i: stored["ema"][f"module.{name}"] for i, name in order.items()})
            for name, buffer in average.buffers.items():
                buffer.copy_(stored["ema"][f"module.{name}"].whole())
        self._take_moments(optimizer, stored["optimizer"]["state"])

    def _take_moments(self, optimizer: Optimizer, stored: Mapping[int, Mapping[str, Any]]) -> None:
        flats = self._partitions.flats
        optimizer.state.clear()
        for name in {key: None for state in stored.values() for key in state}:
            values = {i: state[name] for i, state in stored.items() if name in state}
            if any(isinstance(value, Stored) and value.shape for value in values.values()):
                parts: list[Any] = [torch.zeros_like(flat, requires_grad=False) for flat in flats]
                self._partitions.take(parts, values)
            else:  # counters, equal in all parameters of a flat tensor
                firsts = [
                    next((i for i in self._partitions.of_flat(k) if i in values), None) for k in range(len(flats))
                ]
                parts = [None if i is None else _counter(flats[k], values[i]) for k, i in enumerate(firsts)]
            for flat, part in zip(flats, parts, strict=True):
                optimizer.state[flat][name] = part


def _of_first(value: Tensor) -> Piece:
    """Return what every process has, for the first one to write."""
    return Piece.of(value, kept=parallel.rank() == 0)


def _frozen(parameter: Any) -> Piece:
    """Return what this process has of a parameter that does not learn, which ZeRO 3 cuts, too."""
    if not hasattr(parameter, "ds_tensor"):
        return _of_first(parameter)
    start, count = _own_run(parameter)
    return Piece(parameter.ds_tensor.detach().view(-1)[:count], start, tuple(parameter.ds_shape))


def _own_run(parameter: Any) -> tuple[int, int]:
    """Return the first index and the count of the values of a parameter that this process keeps under ZeRO 3."""
    numbers, length = parameter.ds_numel, parameter.partition_numel()
    start = min(parallel.rank() * length, numbers)
    return start, min(length, numbers - start)


def _take(value: Any, stored: Stored) -> None:
    """Read a parameter or a buffer where it is whole, and the own part of what ZeRO 3 cuts."""
    if hasattr(value, "ds_tensor"):
        start, count = _own_run(value)
        value.ds_tensor.view(-1)[:count].copy_(stored.part(start, count))
    if not hasattr(value, "ds_tensor") or value.shape == value.ds_shape:  # small ones stay whole
        value.copy_(stored.whole())


def _counter(flat: Tensor, value: Any) -> Any:
    """Return a counter on the device of a flat tensor, as an object of its own."""
    return value.whole().to(flat.device, copy=True) if isinstance(value, Stored) else value
