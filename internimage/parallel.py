"""What processes that train together share: which images are whose, counts of the whole batch, and objects.

The images of a step are those of one whole batch, whatever the number of processes: each takes its part of it. A count
that a loss is divided by, or random numbers that are drawn for each image, are those of the whole batch, so that many
processes find the gradients that a single one would. A process on its own has the whole batch, and nothing here changes
anything for it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class _Team:
    rank: int
    size: int
    group: dist.ProcessGroup  # for objects and counts in the memory of the processor, also where gradients go by NCCL


_team: _Team | None = None


def join(timeout: datetime.timedelta) -> None:
    """Take part in the training of the processes of torch's default group; all of them call this.

    Args:
        timeout: how long one process waits for the others before it fails.
    """
    global _team
    if dist.get_world_size() > 1:
        group = dist.new_group(backend="gloo", timeout=timeout)
        assert isinstance(group, dist.ProcessGroup)  # this process is in it
        _team = _Team(dist.get_rank(), dist.get_world_size(), group)


def leave() -> None:
    """Be on one's own again."""
    global _team
    _team = None


def rank() -> int:
    """Return the index of this process among those that train together."""
    return 0 if _team is None else _team.rank


def world() -> int:
    """Return how many processes train together."""
    return 1 if _team is None else _team.size


def own_rows(count: int, *, of: int | None = None) -> list[int]:
    """Return where the images of a process stand in the whole batch.

    Image i of the whole batch and image -1 - i are mixed by MixUp and CutMix, so both go to the same process.

    Args:
        count: images of one process.
        of: index of the process, None for this one.

    Example:
        >>> own_rows(4)
        [0, 1, 2, 3]
    """
    process, half, size = rank() if of is None else of, count // 2, world()
    front = list(range(process * half, (process + 1) * half))
    middle = [half * size + process] if count % 2 else []
    return [*front, *middle, *(count * size - 1 - i for i in reversed(front))]


def gathered(own: T) -> list[T]:
    """Return what each process gives, in the order of their indices; all of them call this."""
    if _team is None:
        return [own]
    found: list[T | None] = [None] * _team.size
    dist.all_gather_object(found, own, group=_team.group)
    return found  # type: ignore[return-value]  # every place is filled


def each_does(own: Callable[[], T], *, may_fail: type[OSError] | type[ValueError]) -> list[T]:
    """Return what a function returns on each process; all of them call this, and where one fails, all of them fail.

    Args:
        own: what this process does; it must not wait for the others.
        may_fail: the error that it may raise. The others raise it, too, with the message of the first that failed.
    """
    if _team is None:
        return [own()]
    value: T | None = None
    error: Exception | None = None
    try:
        value = own()
    except may_fail as found:
        error = found
    done = gathered((value, None if error is None else str(error)))
    for process, (_, problem) in enumerate(done):
        if problem is not None:
            raise may_fail(f"process {process} of {_team.size}: {problem}") from error
    return [result for result, _ in done]  # type: ignore[misc]  # none of them failed


def largest(own: Sequence[int]) -> list[int]:
    """Return the largest of the numbers that the processes give, place by place; all of them call this."""
    if _team is None:
        return list(own)
    found = torch.tensor(own)
    dist.all_reduce(found, op=dist.ReduceOp.MAX, group=_team.group)
    return found.tolist()


def mean(own: float) -> float:
    """Return the mean of the numbers that the processes give; all of them call this."""
    return sum(gathered(own)) / world()


def of_batch(own: Sequence[T]) -> list[T]:
    """Return what belongs to each image of the whole batch, given what belongs to those of this process.

    Args:
        own: one entry for each own image, equally many on every process; all of them call this.
    """
    parts = gathered(list(own))
    whole: dict[int, T] = {}
    for process, part in enumerate(parts):
        whole.update(zip(own_rows(len(part), of=process), part, strict=True))
    return [whole[i] for i in range(len(whole))]


def own_part(values: Tensor, counts: Sequence[int], *, dim: int = 0) -> Tensor:
    """Return the rows of the own images out of those of the whole batch.

    Args:
        values: rows of all images, one image after the other along `dim`.
        counts: rows of each image of the whole batch.
        dim: axis of the rows.

    Example:
        >>> own_part(torch.arange(3), [2, 1])
        tensor([0, 1, 2])
    """
    if _team is None:
        return values
    parts = values.split(list(counts), dim=dim)
    return torch.cat([parts[i] for i in own_rows(len(counts) // _team.size)], dim=dim)


def kept(like: Tensor, shape: Sequence[int], rate: float, *, dtype: torch.dtype | None = None) -> Tensor:
    """Return (N, *shape) factors for the own images: 0 for what is dropped, else what makes up for it.

    They are drawn for the whole batch.

    Args:
        like: (N, ...) of own images.
        shape: of what is kept or dropped of an image as one.
        rate: how often it is dropped, 0..1.
        dtype: of the factors, None for the default.
    """
    drawn = torch.empty(len(like) * world(), *shape, dtype=dtype, device=like.device).bernoulli_(1 - rate)
    own = drawn if _team is None else drawn[own_rows(len(like))]
    return own.div_(1 - rate) if rate < 1 else own


def divisor(count: int | Tensor, like: Tensor) -> int | Tensor:
    """Return what a sum over own examples is divided by, so that the mean over processes is that of the whole batch.

    Args:
        count: examples of this process.
        like: a tensor on the device and in the type of the loss.

    Returns:
        Mean count of all processes of torch's default group, as if there were at least one example in the whole batch.

    Example:
        >>> divisor(0, torch.ones(1))
        1
    """
    if not _is_distributed():
        return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)
    total = torch.as_tensor(count, device=like.device, dtype=like.dtype).detach().clone()
    dist.all_reduce(total)
    return total.clamp(min=1) / dist.get_world_size()


def relative_to_mean(value: Tensor) -> Tensor | float:
    """Return a positive scalar over its mean in all processes of torch's default group; 1.0 in a single one."""
    if not _is_distributed():
        return 1.0
    total = value.detach().clone()
    dist.all_reduce(total)
    return value.detach() * dist.get_world_size() / total


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
