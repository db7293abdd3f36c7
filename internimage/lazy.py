"""Packages whose public names are imported at first use, so that reading a table does not load torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a package that imports its names at first use.

    Args:
        package: `__name__` of the package.
        homes: the module that holds each public name; a public module is its own home.

    Example:
        >>> get, _ = lazy_exports("internimage", {"UnknownName": "internimage.errors"})
        >>> get("UnknownName").__name__
        'UnknownName'
        >>> get("KnownName")
        Traceback (most recent call last):
        AttributeError: module 'internimage' has no attribute 'KnownName'
    """
    members = sys.modules[package].__dict__

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = importlib.import_module(homes[name])
        value = home if homes[name] == f"{package}.{name}" else getattr(home, name)
        members[name] = value
        return value

    return get, lambda: sorted({*members, *homes})
