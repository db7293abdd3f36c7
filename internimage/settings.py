"""Settings: dataclasses as plain values (JSON, YAML) and as texts of the command line, both checked by pydantic.

A setting has a dotted name, such as "schedule.epochs"; dataclasses within dataclasses make the dots.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

from internimage.errors import UnknownName, printable

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

Settings = TypeVar("Settings")
_ENTRY = re.compile(r"^    (\w+): (.+?)(?=^    \w+: |^\S|\Z)", re.MULTILINE | re.DOTALL)
# Marks a field that is no setting: `field(metadata=NO_SETTING)`.
NO_SETTING: Mapping[str, object] = {"is_setting": False}


# --- plain values


def to_plain(settings: object) -> dict[str, object]:
    """Return a dataclass as nested dictionaries, lists and values, as JSON knows them."""
    return {
        field.name: to_plain_value(getattr(settings, field.name))
        for field in dataclasses.fields(settings)  # type: ignore[arg-type]  # settings are dataclasses
        if _is_setting(field)
    }


def to_plain_value(value: object) -> object:
    """Return one value as JSON knows it."""
    if dataclasses.is_dataclass(value):
        return to_plain(value)
    return [to_plain_value(entry) for entry in value] if isinstance(value, list | tuple) else value


def from_plain(kind: type[Settings], values: object) -> Settings:
    """Rebuild a dataclass from the dictionaries and lists that JSON gives.

    Raises:
        ValueError: a field is unknown, or a value out of its range.
        TypeError: a field is missing or has the wrong type.
    """
    return typing.cast(Settings, value_of(kind, values, kind.__name__))


def value_of(hint: object, value: object, name: str) -> object:
    """Return a plain value as the type that a field declares; refuse every other type.

    Args:
        hint: type of the field.
        value: what JSON gives.
        name: what messages call it.

    Raises:
        ValueError: a field is unknown, or a value out of its range.
        TypeError: a field is missing or has the wrong type.
    """
    from pydantic import ValidationError

    try:
        [found] = _adapter(hint).validate_json(f"[{json.dumps(value)}]", strict=True)
    except ValidationError as error:
        raise _explained(error.errors(include_url=False), name) from None
    return found


@functools.cache
def _adapter(hint: object) -> TypeAdapter[tuple[object]]:
    """Return pydantic's reader; the tuple around the type carries the rule that unknown fields are refused."""
    from pydantic import ConfigDict, TypeAdapter

    kind = typing.cast(type[tuple[object]], types.GenericAlias(tuple, (hint,)))
    return TypeAdapter(kind, config=ConfigDict(extra="forbid"))


def _explained(errors: Sequence[ErrorDetails], name: str) -> Exception:
    """Return the error that says in a sentence what pydantic found."""
    branches: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for error in errors:
        branches.setdefault(tuple(filter(_is_branch, error["loc"])), []).append(error)  # type: ignore[arg-type]  # texts
    kinds = [error for branch in branches.values() for error in branch if _is_kind(error)]
    # Of several dataclasses that a field may hold, the one that the value was meant for has the fewest errors.
    first = min(branches.values(), key=lambda branch: (any(map(_is_kind, branch)), len(branch)))
    # What is there and wrong tells more than what is not there.
    error = min(first, key=lambda e: (e["type"] == "missing", e["type"] != "unexpected_keyword_argument"))
    path = [name, *(str(part) for part in error["loc"][1:] if not _is_branch(part))]
    given, what = error["input"], error["type"]
    where = ".".join(path)
    if what == "value_error":
        # pydantic puts the exception of our own check there for this type of error, which its types leave open.
        return typing.cast(Exception, error["ctx"]["error"])  # pyright: ignore[reportTypedDictNotRequiredAccess]
    if what == "unexpected_keyword_argument":
        unknown = ", ".join(sorted(str(e["loc"][-1]) for e in first if e["type"] == what))
        return ValueError(f"{'.'.join(path[:-1])} has no field {unknown}; was the file written by a newer release?")
    if what == "missing":
        counted = isinstance(error["loc"][-1], int)
        return TypeError(
            f"{'.'.join(path[:-1])} must have more entries, given {printable(given)}"
            if counted
            else f"{where} is missing"
        )
    if what == "literal_error":
        expected = sorted({text for e in kinds if error in kinds for text in re.findall("'(.*?)'", _expected(e))})
        listed = ", ".join(expected) or _expected(error)
        return ValueError(f"{where} must be one of {listed}, given {given!r}")
    kind = {
        "dataclass_type": "an object",
        "tuple_type": "a list",
        "too_long": "a list with fewer entries",
        "int_type": "int",
        "float_type": "float",
        "bool_type": "bool",
        "string_type": "str",
    }.get(what)
    return TypeError(f"{where} must be {kind}, given {given!r}") if kind else ValueError(f"{where}: {error['msg']}")


def _is_branch(part: int | str) -> bool:
    """Whether a part of a place is no field, but the dataclass that a field may hold."""
    return isinstance(part, str) and (part[:1].isupper() or "[" in part or part in ("int", "float", "str", "bool"))


def _is_kind(error: ErrorDetails) -> bool:
    return error["type"] == "literal_error" and error["loc"][-1] == "kind"


def _expected(error: ErrorDetails) -> str:
    return str(error.get("ctx", {}).get("expected", ""))


# --- names


def leaves(settings: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted name and the value of every setting."""
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]  # settings are dataclasses
        value = getattr(settings, field.name)
        if not _is_setting(field):
            continue
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def _is_setting(field: dataclasses.Field[typing.Any]) -> bool:
    return field.metadata.get("is_setting") is not False


def owner_of(settings: object, key: str) -> tuple[object, str]:
    """Return the dataclass that holds a setting, and the name of its field."""
    *sections, name = key.split(".")
    for section in sections:
        settings = getattr(settings, section)
    return settings, name


def setting(settings: object, key: str) -> typing.Any:
    """Return the value of one setting by its dotted name."""
    owner, name = owner_of(settings, key)
    return getattr(owner, name)


def hint_of(settings: object, key: str) -> object:
    """Return the type of a setting."""
    owner, name = owner_of(settings, key)
    return typing.get_type_hints(type(owner))[name]


def replaced(settings: Settings, values: Mapping[str, object]) -> Settings:
    """Return settings with some values replaced, given by dotted names; all at once, so that they are checked together.

    Raises:
        ValueError: a value is out of its range; the message names the setting.
    """
    changes: dict[str, object] = {}
    sections: dict[str, dict[str, object]] = {}
    for key, value in values.items():
        first, _, rest = key.partition(".")
        if rest:
            sections.setdefault(first, {})[rest] = value
        else:
            changes[first] = value
    for name, inner in sections.items():
        section = getattr(settings, name)
        try:
            changes[name] = replaced(section, inner)
        except (ValueError, TypeError) as error:
            # What checks itself calls itself by its class; here it is called by its name.
            own, text = f"{type(section).__name__}.", str(error)
            path = text.removeprefix(own) if text.startswith(own) else None
            raise error if path is None else type(error)(f"{name}.{path}") from None
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]  # settings are dataclasses


def full_name(key: str, names: Sequence[str]) -> str:
    """Return the name of a setting, whose section may be left out where only one section has such a setting.

    Raises:
        UnknownName: there is no such name, or several sections have it.

    Example:
        >>> full_name("num_classes", ["model.num_classes", "data.workers"])
        'model.num_classes'
    """
    if key in names:
        return key
    found = [name for name in names if name.rpartition(".")[2] == key]
    shallow = [name for name in found if name.count(".") == 1]
    chosen = shallow or found
    if len(chosen) != 1:
        raise UnknownName("setting", key, chosen or names, "Settings are written section.key=value.")
    return chosen[0]


def meaning(settings: object, key: str) -> str:
    """Return what a setting means, in one line of the docstring of its dataclass; "" where nothing is written."""
    owner, name = owner_of(settings, key)
    for part in type(owner).__mro__:
        if text := dict(_ENTRY.findall(inspect.cleandoc(part.__doc__ or ""))).get(name):
            return " ".join(text.split())
    return ""


# --- texts


def parse_text(hint: object, text: str, key: str) -> object:
    """Turn a text of the command line into a value.

    Args:
        hint: type of the setting.
        text: "3", "0.9,0.95" for a list, "none" for a missing value.
        key: what messages call it.

    Raises:
        ValueError: the text is no such value; the message names the setting, the type and the text.

    Example:
        >>> parse_text(tuple[float, float], "0.9,0.95", "optimizer.betas")
        (0.9, 0.95)
    """
    from pydantic import ValidationError

    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return parse_text(inner[0], text, key)
    if origin in (typing.Union, types.UnionType):
        kinds = [part for part in inner if part is not types.NoneType]
        if len(kinds) < len(inner) and text.lower() in ("none", "null"):
            return None
        if len(kinds) == 1:
            return parse_text(kinds[0], text, key)
    if origin is tuple:
        return _parse_list(inner, text, key)
    if dataclasses.is_dataclass(hint):
        raise ValueError(f"{key} can be switched off with none here, or described in a file; given {text!r}")
    try:
        [value] = _adapter(hint).validate_python((text,))
    except ValidationError:
        raise ValueError(f"{key} must be {_described(hint)}, given {text!r}") from None
    return value


def _parse_list(inner: tuple[object, ...], text: str, key: str) -> tuple[object, ...]:
    if any(map(dataclasses.is_dataclass, inner)):
        raise ValueError(f"{key} is a list that only a file can describe; given {text!r}")
    parts = [part.strip() for part in text.strip("()[] ").split(",") if part.strip()]
    if inner[-1] is Ellipsis:
        return tuple(parse_text(inner[0], part, key) for part in parts)
    if len(parts) != len(inner):
        raise ValueError(f"{key} needs {len(inner)} values separated by commas, given {text!r}")
    return tuple(parse_text(kind, part, key) for kind, part in zip(inner, parts, strict=True))


def _described(hint: object) -> str:
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    if hint is bool:
        return "true or false"
    return f"a number of type {getattr(hint, '__name__', hint)}"


def as_text(value: object) -> str:
    """Return a value as `parse_text` takes it."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ",".join(map(as_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
