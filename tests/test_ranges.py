from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import pytest

from internimage.ranges import Length, Range, check_ranges

Stride = Annotated[int, Range(1, 64)]


@dataclass(frozen=True)
class Settings:
    width: Annotated[int, Range(1, 100)] = 8
    ratio: float = 0.5
    scale: Annotated[float, Range(0.0, 1.0)] | None = None
    strides: Annotated[tuple[Stride, ...], Length(1, 3)] = (4, 8)
    name: str = ""

    def __post_init__(self) -> None:
        check_ranges(self)


def test_values_inside_pass() -> None:
    assert Settings(100, 1e300, 1.0, (1, 64, 2)).strides == (1, 64, 2)
    assert Settings(scale=None, ratio=3).ratio == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, r"Settings\.width must be at least 1, given 0"),
        ({"width": 2**40}, r"Settings\.width must be at most 100, given 1099511627776"),
        ({"width": 10**5000}, r"must be at most 100, given an integer of 16610 bits"),
        ({"ratio": math.nan}, r"Settings\.ratio must be finite, given nan"),
        ({"ratio": -math.inf}, r"must be finite"),
        ({"scale": 1.01}, r"Settings\.scale must be at most 1\.0"),
        ({"strides": ()}, r"Settings\.strides must have 1 to 3 entries, given 0"),
        ({"strides": (4, 4, 4, 4)}, r"1 to 3 entries, given 4"),
        ({"strides": (4, 65)}, r"Settings\.strides must be at most 64, given 65"),
    ],
)
def test_values_outside_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 1.0}, "must be a whole number, given 1.0"),
        ({"width": True}, "must be a whole number"),
        ({"ratio": "half"}, "must be a number, given half"),
        ({"strides": 4}, r"strides must be a list, given 4"),
    ],
)
def test_other_types_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Settings(**changes)
