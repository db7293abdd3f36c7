"""Numbers in files from outside, read as what they mean: 12.0, "12" and " 12 " are 12, and the text "0" is no."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from reprlib import repr as repr_short  # cuts long values
from typing import Any

MAX_LETTERS = 64  # of a number; longer texts are none
LARGEST = 1 << 63
MAX_SIDE = 1_000_000  # pixels of an image
YES, NO = frozenset({"true", "yes", "t", "y"}), frozenset({"false", "no", "f", "n", "none", "null", ""})

Note = Callable[[str], None]  # takes the reason for what is left out


def as_number(value: Any) -> float | None:
    """Return the finite number that a value means, None where it means none.

    Example:
        >>> as_number(2), as_number("2.5"), as_number(" 1e3 "), as_number("wide"), as_number(float("nan"))
        (2.0, 2.5, 1000.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > MAX_LETTERS:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_integer(value: Any) -> int | None:
    """Return the integer that a value means, None where it means none.

    Example:
        >>> as_integer(12.0), as_integer("12"), as_integer(" 12.0 "), as_integer(12.5), as_integer(True)
        (12, 12, 12, None, None)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < LARGEST else None
    if isinstance(value, str) and len(value) <= MAX_LETTERS:
        try:
            return as_integer(int(value))  # exact, also where a float is not
        except ValueError:
            pass
    number = as_number(value)
    return int(number) if number is not None and number.is_integer() and abs(number) < LARGEST else None


def as_flag(value: Any) -> bool:
    """Return whether a value means yes; nothing at all means no.

    Raises:
        ValueError: it means neither yes nor no.

    Example:
        >>> as_flag("0"), as_flag("1"), as_flag(1.0), as_flag(None), as_flag("False")
        (False, True, True, False, False)
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    number = as_number(value)
    if number is not None:
        return number != 0
    word = value.strip().lower() if isinstance(value, str) else None
    if word in YES or word in NO:
        return word in YES
    raise ValueError(f"expected 0 or 1, given {repr_short(value)}")


def read_flag(entry: Mapping[str, Any], key: str, note: Note) -> bool:
    """Return a flag of an entry; one that means neither yes nor no is noted and taken for no."""
    try:
        return as_flag(entry.get(key))
    except ValueError as error:
        note(f'bad "{key}": {error}; it is taken for 0')
        return False


def read_size(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Return the (height, width) of an entry in pixels, (0, 0) where it does not say both.

    Example:
        >>> read_size({"height": "80", "width": 60.0}), read_size({"height": 80, "width": -1})
        ((80, 60), (0, 0))
    """
    height, width = (as_integer(entry.get(name)) or 0 for name in ("height", "width"))
    return (height, width) if 0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE else (0, 0)
