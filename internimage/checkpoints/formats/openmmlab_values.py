"""Reading the nested dictionaries of original detectors and segmentors.

Every value is checked; what is not supported is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from internimage.backbones.original.settings import integer as integer
from internimage.backbones.original.settings import number as number
from internimage.flow import Settings


def expect(values: Settings, where: str, fixed: Settings, types: Sequence[str] = ()) -> None:
    """Raise unless the settings that are given have the one value that is supported.

    Args:
        values: a dictionary of the original.
        where: what to call it in messages.
        fixed: name and supported value of settings; missing ones count as supported.
        types: supported values of "type", empty for any.

    Raises:
        ValueError: a setting has another value.
    """
    if types and values.get("type") not in types:
        raise ValueError(f"{where}.type must be {' or '.join(types)}, given {values.get('type')!r}")
    for name, wanted in fixed.items():
        given = plain(values.get(name, wanted))
        if given != wanted:
            raise ValueError(f"{where}.{name} must be {wanted!r}, given {given!r}")


def plain(value: object) -> Any:
    """Return a value with its tuples as lists."""
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def mapping(values: Settings, name: str) -> Settings:
    """Return a dictionary inside of another; of a list of them, the first.

    Raises:
        ValueError: there is none.
    """
    value = values.get(name)
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if not isinstance(value, Mapping):
        raise ValueError(f"the settings lack {name!r}, a dictionary; given {value!r}")
    return value


def numbers(values: Settings, name: str, count: int | None = None) -> tuple[float, ...]:
    """Return a list of numbers, of a given length where `count` says so.

    Raises:
        ValueError: it is missing or something else.
    """
    value = values.get(name)
    found = value if isinstance(value, list | tuple) else ()
    if not found or count not in (None, len(found)) or not all(type(v) in (int, float) for v in found):
        raise ValueError(f"{name} must be {count or 'a list of'} numbers, given {value!r}")
    return tuple(map(float, found))


def whole_pair(values: Settings, name: str) -> tuple[int, int]:
    """Return two whole numbers.

    Raises:
        ValueError: they are missing or something else.
    """
    value = values.get(name)
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(type(v) is int for v in value):
        raise ValueError(f"{name} must be two whole numbers, given {value!r}")
    return (value[0], value[1])


def inference_steps(pipeline: Sequence[Settings]) -> tuple[Settings, dict[str, Settings]]:
    """Return the step of a test pipeline that holds the size of the input, and those inside of it by their types.

    Raises:
        ValueError: there is none, or one of them is not supported.
    """
    augment = next((step for step in pipeline if step.get("type") == "MultiScaleFlipAug"), None)
    if augment is None:
        raise ValueError("test_pipeline has no step MultiScaleFlipAug, which holds the size of the input")
    steps = {str(step.get("type")): step for step in augment.get("transforms") or ()}
    expect(steps.get("Resize", {}), "Resize", {"keep_ratio": True})
    expect(steps.get("Normalize", {}), "Normalize", {"to_rgb": True})
    return augment, steps
