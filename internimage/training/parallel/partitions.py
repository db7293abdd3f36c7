"""Where DeepSpeed keeps parameters: each process has parts of them in flat float32 tensors, which the optimizer moves.

ZeRO 1 and 2 cut the row of all parameters of a group into as many parts as there are processes; ZeRO 3 cuts each
parameter. Moments and running averages lie as the parameters do, so one table of places serves all of them.

Shape legend: n numbers of a flat tensor on one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from internimage import parallel
from internimage.checkpoints.pieces import Piece, Stored
from internimage.recipe import EmaSettings
from internimage.training.ema import decay_at


@dataclass(frozen=True)
class _Place:
    """Where a parameter lies.

    Args:
        parameter: index of the parameter among those of the optimizer.
        shape: of the parameter.
        start: where it begins: in the row of all processes together, or in the part of each.
        length: numbers in that row or part.
    """

    parameter: int
    shape: torch.Size
    start: int
    length: int


class Partitions:
    """The flat tensors of this process, and which parameter is where.

    Args:
        optimizer: of DeepSpeed, for ZeRO 1, 2 or 3.
        parameters: those of the optimizer, in the order of its groups.

    Attributes:
        flats: (n,) tensors of this process.
    """

    def __init__(self, optimizer: Any, parameters: Sequence[nn.Parameter]) -> None:
        index = {id(parameter): i for i, parameter in enumerate(parameters)}
        self._cuts_each = hasattr(optimizer, "fp32_partitioned_groups_flat")  # ZeRO 3
        if self._cuts_each:
            self.flats: list[Tensor] = optimizer.fp32_partitioned_groups_flat
            groups = optimizer.fp16_groups
        else:
            self.flats, groups = optimizer.single_partition_of_fp32_groups, optimizer.bit16_groups
        self._places = [self._of_group(group, index) for group in groups]
        self._clear_padding()

    @torch.no_grad()
    def _clear_padding(self) -> None:
        """Set what belongs to no parameter to zero: DeepSpeed leaves there whatever the memory held, NaN too."""
        for flat, places in zip(self.flats, self._places, strict=True):
            end = 0
            for here, _, count in sorted(self._run(place, flat, parallel.rank()) for place in places):
                if count > 0:
                    flat[end:here] = 0
                    end = here + count
            flat[end:] = 0

    def _of_group(self, group: Sequence[Any], index: Mapping[int, int]) -> list[_Place]:
        places, start = [], 0
        for parameter in group:
            shape = parameter.ds_shape if self._cuts_each else parameter.shape
            length = parameter.partition_numel() if self._cuts_each else parameter.numel()
            places.append(_Place(index[id(parameter)], shape, start, length))
            start += length
        return places

    def _run(self, place: _Place, flat: Tensor, rank: int) -> tuple[int, int, int]:
        """Return what a process has of a parameter: first index in the flat tensor and in the parameter, and count."""
        numbers = place.shape.numel()
        if self._cuts_each:
            first = min(rank * place.length, numbers)
            return place.start, first, min(place.length, numbers - first)
        before = rank * flat.numel()
        low = min(max(place.start, before), place.start + numbers)
        high = max(low, min(place.start + numbers, before + flat.numel()))
        return max(low - before, 0), low - place.start, high - low

    def gathered(self, own: Iterable[Tensor]) -> dict[int, Tensor]:
        """Return whole tensors by the index of their parameter; all processes call this.

        Args:
            own: (n,) tensors of this process that lie as `flats`.
        """
        found: dict[int, Tensor] = {}
        for part, places in zip(own, self._places, strict=True):
            parts = [torch.empty_like(part) for _ in range(parallel.world())]
            dist.all_gather(parts, part.detach().contiguous())
            for place in places:
                whole = part.new_empty(place.shape.numel())
                for rank, values in enumerate(parts):
                    here, there, count = self._run(place, part, rank)
                    whole[there : there + count] = values[here : here + count]
                found[place.parameter] = whole.view(place.shape)
        return found

    def pieces(self, own: Iterable[Tensor]) -> dict[int, Piece]:
        """Return what this process has of each tensor, by the index of its parameter.

        Args:
            own: (n,) tensors that lie as `flats`.
        """
        found: dict[int, Piece] = {}
        for part, places in zip(own, self._places, strict=True):
            for place in places:
                here, there, count = self._run(place, part, parallel.rank())
                found[place.parameter] = Piece(part.detach()[here : here + count], there, tuple(place.shape))
        return found

    @torch.no_grad()
    def take(self, own: Iterable[Tensor], stored: Mapping[int, Stored]) -> None:
        """Read what belongs to this process.

        Args:
            own: (n,) tensors that lie as `flats`; changed in place.
            stored: tensors by the index of their parameter; what lacks is left as it is.
        """
        for part, places in zip(own, self._places, strict=True):
            for place in (place for place in places if place.parameter in stored):
                here, there, count = self._run(place, part, parallel.rank())
                part[here : here + count].copy_(stored[place.parameter].part(there, count))

    def of_flat(self, flat: int) -> list[int]:
        """Return the indices of the parameters of a flat tensor."""
        return [place.parameter for place in self._places[flat]]


class PartitionedAverage:
    """The running average of what this process keeps.

    Args:
        settings: its decay.

    Attributes:
        count: updates so far, counted from 1 as torch does.
        flats: averages of the flat tensors.
        buffers: of those of the model.
    """

    def __init__(self, settings: EmaSettings) -> None:
        self._settings, self.count = settings, 1
        self.flats: list[Tensor] = []
        self.buffers: dict[str, Tensor] = {}

    def begin(self, flats: Sequence[Tensor], buffers: Mapping[str, Tensor]) -> None:
        """Start with the present values; `flats` are followed from here on."""
        self._followed = flats
        self.flats = [flat.detach().clone() for flat in flats]
        self.buffers = {name: buffer.detach().clone() for name, buffer in buffers.items()}

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move towards the present weights; counters are copied."""
        decay = decay_at(self.count, self._settings)
        present = buffers_of(model)
        pairs = [
            *zip(self.flats, self._followed, strict=True),
            *((kept, present[k]) for k, kept in self.buffers.items()),
        ]
        for kept, value in pairs:
            if kept.is_floating_point():
                kept.lerp_(value, 1 - decay)
            else:
                kept.copy_(value)
        self.count += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return what this process keeps."""
        return {"n_averaged": torch.tensor(self.count), **self.buffers, **numbered(self.flats)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned."""
        self.count = int(state["n_averaged"])
        for name, value in {**self.buffers, **numbered(self.flats)}.items():
            value.copy_(state[name])


def numbered(flats: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return flat tensors with names."""
    return {f"part {i}": flat for i, flat in enumerate(flats)}


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers of a model that belong to its state."""
    own = model.state_dict(keep_vars=True)
    return {name: value for name, value in own.items() if not isinstance(value, nn.Parameter)}
