"""Settings as text: "section.key=value" for any recipe, typed by the fields it stands for."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from internimage.errors import UnknownName

Settings = TypeVar("Settings")


def setting_names(recipe: type[Any]) -> list[str]:
    """Return every key that an override of this kind of recipe may name, such as "schedule.epochs"."""
    names: list[str] = []
    hints = typing.get_type_hints(recipe)
    for part in dataclasses.fields(recipe):
        if part.metadata.get("is_setting") is False:
            continue
        kind = hints[part.name]
        if dataclasses.is_dataclass(kind):
            names += [f"{part.name}.{inner.name}" for inner in dataclasses.fields(kind)]
        else:
            names.append(part.name)
    return names


def setting(recipe: Any, key: str) -> Any:
    """Return the value of one setting, `key` being one of `setting_names`."""
    section, _, name = key.rpartition(".")
    return getattr(getattr(recipe, section) if section else recipe, name)


def override_values(recipe: Any, overrides: Iterable[str]) -> dict[str, Any]:
    """Return the values that overrides give, by the full names of their keys.

    Args:
        recipe: a dataclass whose fields are values or dataclasses of values.
        overrides: texts like "schedule.epochs=3" or "label_smoothing=0"; tuples are written "0.9,0.95" and a missing
            value "none". The section may be left out where only one has such a key.

    Raises:
        ValueError: a text is not `key=value`, or the value has the wrong type.
        UnknownName: there is no such key; the message suggests the nearest ones.
    """
    values: dict[str, Any] = {}
    names = setting_names(type(recipe))
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator:
            raise ValueError(f"an override must look like section.key=value, given {text!r}")
        key = full_name(key.strip(), names)
        section, _, name = key.rpartition(".")
        owner = getattr(recipe, section) if section else recipe
        values[key] = parse_value(key, value.strip(), typing.get_type_hints(type(owner))[name])
    return values


def with_values(recipe: Settings, values: Mapping[str, Any]) -> Settings:
    """Return a recipe with some settings replaced, given by their full names such as "schedule.epochs"."""
    changes: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        changes.setdefault(section, {})[name] = value
    top = changes.pop("", {})
    parts = {section: dataclasses.replace(getattr(recipe, section), **inner) for section, inner in changes.items()}
    return dataclasses.replace(recipe, **parts, **top)  # type: ignore[type-var]  # every recipe is a dataclass


def full_name(key: str, names: Sequence[str]) -> str:
    """Return the key of a setting, whose section may be left out where only one section has such a setting.

    Raises:
        UnknownName: there is no such key, or several sections have it.

    Example:
        >>> full_name("num_classes", ["model.num_classes", "data.workers"])
        'model.num_classes'
    """
    if key in names:
        return key
    found = [name for name in names if name.rpartition(".")[2] == key]
    if len(found) != 1:
        raise UnknownName("setting", key, found or names, "Settings are written section.key=value.")
    return found[0]


def check_ranges(recipe: Any, *, at_least: Mapping[str, float], shares: Iterable[str]) -> None:
    """Refuse values that no run can use.

    Args:
        recipe: the settings.
        at_least: key to its smallest value.
        shares: keys whose value must lie in 0..1.

    Raises:
        ValueError: a value is out of its range.
    """
    for key, smallest in at_least.items():
        if not (value := setting(recipe, key)) >= smallest:
            raise ValueError(f"{key} must be at least {smallest}, given {value}")
    for key in shares:
        if not 0 <= (value := setting(recipe, key)) <= 1:
            raise ValueError(f"{key} must lie in 0..1, given {value}")


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def parse_value(key: str, text: str, kind: Any) -> Any:
    """Turn the text of an override into a value of the type `kind`.

    Raises:
        ValueError: the text is no such value; the message names the key, the type and the text.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if text.lower() in ("none", "null"):
            return None
        return parse_value(key, text, next(part for part in inner if part is not type(None)))
    if origin is Literal:
        if text in inner:
            return text
        raise ValueError(f"{key} must be one of {', '.join(inner)}, given {text!r}")
    if origin is tuple:
        parts = [part for part in text.strip("()[] ").split(",") if part.strip()]
        if inner[-1] is Ellipsis:
            return tuple(parse_value(key, part.strip(), inner[0]) for part in parts)
        if len(parts) != len(inner):
            raise ValueError(f"{key} needs {len(inner)} values separated by commas, given {text!r}")
        return tuple(parse_value(key, part.strip(), part_kind) for part, part_kind in zip(parts, inner, strict=True))
    if kind is bool:
        if text.lower() in _BOOLEANS:
            return _BOOLEANS[text.lower()]
        raise ValueError(f"{key} must be true or false, given {text!r}")
    if kind is str:
        return text
    if dataclasses.is_dataclass(kind):
        raise ValueError(f"{key} can be switched off with none here, or described in Python; given {text!r}")
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{key} must be a number of type {kind.__name__}, given {text!r}") from error
