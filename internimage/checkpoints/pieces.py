"""Tensors that several processes keep, in files: each process writes its pieces, any process reads any part.

A piece is a run of the values of a tensor in the order of memory, which is what FSDP (rows) and ZeRO (flat partitions)
leave to a process, so that what one number of processes writes is read by any other. Files are safetensors: nothing in
them can run, and a checksum of each piece tells damage. (torch.distributed.checkpoint pickles its index, knows nothing
of flat partitions, and reads damaged values as they are.)
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from internimage.checkpoints.save import write_safetensors
from internimage.errors import printable

# The keys that lead to a tensor in dictionaries of any depth.
Route = tuple[str | int, ...]
# What is noted of a piece: route, shape of the tensor, dtype, index of the first value, count of values, checksum.
Note = tuple[Route, tuple[int, ...], str, int, int, int]
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


class DamagedFile(ValueError):
    """A file does not hold what was written to it."""


@dataclass(frozen=True)
class Piece:
    """What one process keeps of a tensor.

    Args:
        values: (n,) values that follow one another in memory; empty where the process keeps nothing of the tensor.
        start: index of the first one in the whole tensor.
        shape: of the whole tensor.
    """

    values: Tensor
    start: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, value: Tensor, *, kept: bool = True) -> Piece:
        """Return a whole tensor as a piece, or nothing of it where it is not kept."""
        flat = value.detach().contiguous().view(-1)
        return cls(flat if kept else flat[:0], 0, tuple(value.shape))


class Stored:
    """A tensor in memory, see also `FiledTensor`."""

    def __init__(self, value: Tensor) -> None:
        self._value, self.shape = value, tuple(value.shape)

    def whole(self) -> Tensor:
        """Return all of it."""
        return self._value

    def part(self, start: int, count: int) -> Tensor:
        """Return (count,) values from an index on, in the order of memory."""
        return self._value.contiguous().view(-1)[start : start + count]


class FiledTensor(Stored):
    """A tensor whose pieces lie in files; what is asked for is read, and all pieces that it touches are checked."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, parts: Sequence[_Part]) -> None:
        self.shape, self._dtype = shape, dtype
        self._parts = sorted(parts, key=lambda part: part.start)

    def whole(self) -> Tensor:
        """Return all of it.

        Raises:
            DamagedFile: a file is gone, cut off, or holds other values than were written.
        """
        return self.part(0, math.prod(self.shape)).view(self.shape)

    def part(self, start: int, count: int) -> Tensor:
        """Return (count,) values from an index on, in the order of memory.

        Raises:
            DamagedFile: a file is gone, cut off, or holds other values than were written.
        """
        found = torch.empty(count, dtype=self._dtype)
        for part in self._parts:
            low, high = max(start, part.start), min(start + count, part.start + part.count)
            if low < high:
                values = part.file.values(part.key, self._dtype, part.checksum)
                found[low - start : high - start] = values[low - part.start : high - part.start]
        return found


class _File:
    """A safetensors file of pieces, mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._read():
            self._open = safe_open(path, framework="pt", device="cpu")

    def count(self, key: str) -> int:
        """Return how many values a piece has."""
        with self._read():
            return math.prod(self._open.get_slice(key).get_shape())

    def values(self, key: str, dtype: torch.dtype, checksum: int) -> Tensor:
        """Return a piece."""
        with self._read():
            values = self._open.get_tensor(key)
        if values.ndim != 1 or values.dtype != dtype or _checksum(values) != checksum:
            raise DamagedFile(f"{self.path} is damaged: {printable(key)} is not what was written")
        return values

    @contextlib.contextmanager
    def _read(self) -> Iterator[None]:
        try:
            yield
        except (SafetensorError, OSError, ValueError, OverflowError) as error:
            raise DamagedFile(f"{self.path} is damaged: {error}") from error


@dataclass(frozen=True)
class _Part:
    """A piece in a file."""

    file: _File
    key: str
    start: int
    count: int
    checksum: int


def write_pieces(states: Mapping[str, Any], path: Path, *, tells_all: bool) -> list[Note]:
    """Write the pieces of one process to a safetensors file, whole or not at all.

    Args:
        states: dictionaries of any depth with pieces in them; other values are passed over.
        path: the file.
        tells_all: note also the tensors of which the process keeps nothing.

    Returns:
        What `read_pieces` needs to know of the file.

    Raises:
        OSError: the file cannot be written.
    """
    notes: list[Note] = []
    tensors: dict[str, Tensor] = {}
    for route, piece in _pieces(states, ()):
        values = piece.values.cpu()
        if len(values) or tells_all:
            dtype = str(values.dtype).removeprefix("torch.")
            notes.append((route, piece.shape, dtype, piece.start, len(values), _checksum(values)))
        if len(values):
            tensors[_key(route)] = values
    write_safetensors(tensors, path, {})
    return notes


def read_pieces(notes: Mapping[str, Sequence[Note]], folder: Path) -> dict[Route, Stored]:
    """Return the tensors in the files of a folder; their values are read when they are asked for.

    Args:
        notes: what `write_pieces` returned, by the name of its file.
        folder: where the files lie.

    Raises:
        DamagedFile: the pieces do not make whole tensors.
    """
    about: dict[Route, tuple[tuple[int, ...], str]] = {}
    parts: dict[Route, list[_Part]] = {}
    for name, of_file in notes.items():
        if Path(name).name != name:
            raise DamagedFile(f"{folder} is damaged: it names a file elsewhere, {printable(name)}")
        file = _File(folder / name)
        for route, shape, dtype, start, count, checksum in of_file:
            if about.setdefault(route, (shape, dtype)) != (shape, dtype) or dtype not in _DTYPES:
                raise DamagedFile(f"{folder} is damaged: it contradicts itself about {printable(_key(route))}")
            found = parts.setdefault(route, [])
            if count:
                found.append(_Part(file, _key(route), start, count, checksum))
    for route, found in parts.items():
        if not _is_whole(found, math.prod(about[route][0])):
            raise DamagedFile(f"{folder} is damaged: it lacks a part of {printable(_key(route))}")
    return {route: FiledTensor(shape, _DTYPES[dtype], parts[route]) for route, (shape, dtype) in about.items()}


def _is_whole(parts: Sequence[_Part], count: int) -> bool:
    """Whether pieces follow one another without gaps, and files hold as many values as they should."""
    end = 0
    for part in sorted(parts, key=lambda part: part.start):
        if part.start != end or part.file.count(part.key) != part.count:
            return False
        end += part.count
    return end == count


def whole(value: Stored) -> Tensor:
    """Return all of a stored tensor, for `changed`."""
    return value.whole()


def changed(states: Any, change: Callable[[Any], Any]) -> Any:
    """Return dictionaries of any depth with their tensors, pieces or stored tensors changed; other values stay.

    Example:
        >>> changed({"weight": torch.ones(1), "group": {"lr": 0.1}}, lambda value: value + 1)
        {'weight': tensor([2.]), 'group': {'lr': 0.1}}
    """
    if isinstance(states, Tensor | Piece | Stored):
        return change(states)
    return {key: changed(inner, change) for key, inner in states.items()} if isinstance(states, Mapping) else states


def without_pieces(states: Any) -> Any:
    """Return dictionaries of any depth without the pieces in them."""
    if not isinstance(states, Mapping):
        return states
    return {key: without_pieces(inner) for key, inner in states.items() if not isinstance(inner, Piece)}


def with_stored(states: dict[Any, Any], stored: Mapping[Route, Stored]) -> None:
    """Put tensors where their routes lead, into dictionaries that `without_pieces` returned."""
    for route, value in stored.items():
        place = states
        for key in route[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise DamagedFile(f"there is no place for {printable(_key(route))}")
        place[route[-1]] = value


def _pieces(states: Any, route: Route) -> list[tuple[Route, Piece]]:
    if isinstance(states, Piece):
        return [(route, states)]
    if not isinstance(states, Mapping):
        return []
    return [found for key, inner in states.items() for found in _pieces(inner, (*route, key))]


def _key(route: Route) -> str:
    return "/".join(map(str, route))


def _checksum(values: Tensor) -> int:
    return zlib.crc32(values.contiguous().view(torch.uint8).numpy().data)
