"""What a setting means: the sentences of the docstrings of the classes that hold it."""

from __future__ import annotations

import inspect
import re
from typing import Any

_ENTRY = re.compile(r"^    (\w+): (.+?)(?=^    \w+: |^\S|\Z)", re.MULTILINE | re.DOTALL)


def meaning(recipe: Any, key: str) -> str:
    """Return what a setting of a recipe means, in one line; "" where nothing is written.

    Args:
        recipe: the recipe.
        key: a name of `internimage.training.overrides.setting_names`.

    Example:
        >>> from internimage.training import RECIPES
        >>> meaning(RECIPES["internimage_t_1k_224"], "data.size")
        'side of the square input in pixels.'
    """
    section, _, name = key.rpartition(".")
    owner = type(getattr(recipe, section) if section else recipe)
    for part in owner.__mro__:
        entries = dict(_ENTRY.findall(inspect.cleandoc(part.__doc__ or "")))
        if name in entries:
            return " ".join(entries[name].split())
    return ""
