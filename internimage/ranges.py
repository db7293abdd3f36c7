"""Ranges of settings, written beside the fields that they bound.

A settings dataclass states them in its types and checks them when it is made (`Ranged` does), so that a description out
of a foreign file is as harmless as one that a caller writes:

    channels: Annotated[int, Range(1, 4096)] = 256
    strides: Annotated[tuple[Annotated[int, Range(1, 1024)], ...], Length(1, 8)] = (4, 8, 16)
"""

from __future__ import annotations

import functools
import math
import numbers
import types
import typing
from dataclasses import dataclass
from typing import Any

from internimage.errors import printable


@dataclass(frozen=True)
class Range:
    """Smallest and largest value of a number, both allowed."""

    low: float
    high: float


@dataclass(frozen=True)
class Length:
    """Fewest and most entries of a list, both allowed."""

    fewest: int
    most: int


class Ranged:
    """A settings dataclass, whose numbers are checked when it is made, see `check_ranges`."""

    def __post_init__(self) -> None:
        check_ranges(self)


def check_ranges(config: object, *, name: str | None = None) -> None:
    """Raise unless every number of a settings dataclass is finite and in the range of its field.

    Args:
        config: the settings.
        name: what messages call it, None for its class.

    Raises:
        TypeError: a field that holds a number, or a list of them, holds something else.
        ValueError: a number is out of its range, NaN or infinite, or a list has too few or too many entries.
    """
    for field, hint in _hints(type(config)).items():
        _check(hint, getattr(config, field), f"{name or type(config).__name__}.{field}")


@functools.cache
def _hints(config: type) -> dict[str, Any]:
    """Return the types of the fields with their ranges."""
    return typing.get_type_hints(config, include_extras=True)


def _check(hint: Any, value: Any, name: str) -> None:
    limits: list[Any] = []
    if typing.get_origin(hint) is typing.Annotated:
        hint, *limits = typing.get_args(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        if value is not None and len(inner) == 1:
            _check(inner[0], value, name)
    elif origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{name} must be a list, given {printable(value)}")
        for limit in limits:
            if not limit.fewest <= len(value) <= limit.most:
                raise ValueError(f"{name} must have {limit.fewest} to {limit.most} entries, given {len(value)}")
        for entry in value:
            _check(arguments[0], entry, name)
    elif hint in (int, float):
        _check_number(hint, value, name, limits)


def _check_number(hint: type, value: Any, name: str, limits: list[Any]) -> None:
    kind, what = (numbers.Integral, "a whole number") if hint is int else (numbers.Real, "a number")
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{name} must be {what}, given {printable(value)}")
    if not isinstance(value, numbers.Integral) and not math.isfinite(value):
        least = f" and at least {limits[0].low}" if limits else ""
        raise ValueError(f"{name} must be finite{least}, given {value}")
    for limit in limits:
        if not limit.low <= value <= limit.high:
            bound = f"at least {limit.low}" if value < limit.low else f"at most {limit.high}"
            if (limit.low, limit.high) == (0, 1):
                bound += " (it lies in 0..1)"
            raise ValueError(f"{name} must be {bound}, given {printable(value)}")
