"""The classes of own data, from `classes.txt` or `classes.json` beside the pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internimage.types import Palette

FILES = ("classes.json", "classes.txt")
MAX_BYTES = 2**20


@dataclass(frozen=True)
class ClassList:
    """Names of the classes and, where masks are colored, their colors.

    Args:
        names: K names.
        palette: K colors (red, green, blue) 0..255, or None.
        ignored_colors: colors of masks that stand for no label.
    """

    names: tuple[str, ...]
    palette: Palette | None = None
    ignored_colors: Palette = ()


def find_class_list(root: Path) -> ClassList | None:
    """Read the class list of a folder, None where it has none.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    path = next((root / name for name in FILES if (root / name).is_file()), None)
    return None if path is None else read_class_list(path)


def read_class_list(path: Path) -> ClassList:
    """Read a class list.

    Args:
        path: text file with one name on each line, or JSON: a list of names, or {"classes": [names], "palette":
            [[red, green, blue], ...], "ignored_colors": [...]}, the last two optional.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: a class list has at most {MAX_BYTES} bytes, given {path.stat().st_size}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: the class list must be UTF-8 text ({error})") from error
    if path.suffix != ".json":
        return ClassList(_names([line.strip() for line in text.splitlines() if line.strip()], path))
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: this is no JSON ({error})") from error
    content = {"classes": content} if isinstance(content, list) else content
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected a list of names or {{"classes": [...]}}, given {type(content).__name__}')
    unknown = sorted(content.keys() - {"classes", "palette", "ignored_colors"})
    if unknown:
        raise ValueError(f"{path}: unknown entries {', '.join(unknown)}; known are classes, palette, ignored_colors")
    names = _names(content.get("classes"), path)
    palette = None if content.get("palette") is None else colors(content["palette"], f"{path}: palette")
    if palette is not None and len(palette) != len(names):
        raise ValueError(f"{path}: the palette must hold {len(names)} colors, one for each class, given {len(palette)}")
    return ClassList(names, palette, colors(content.get("ignored_colors", []), f"{path}: ignored_colors"))


def colors(value: Any, where: str) -> Palette:
    """Check a list of colors.

    Raises:
        ValueError: it is none, or a color is there twice.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: expected a list of colors, given {type(value).__name__}")
    found: list[tuple[int, int, int]] = []
    for color in value:
        if not isinstance(color, list | tuple) or len(color) != 3 or not all(_is_level(level) for level in color):
            raise ValueError(f"{where}: a color must be three numbers 0..255, given {color!r}")
        found.append((color[0], color[1], color[2]))
    if len(set(found)) != len(found):
        raise ValueError(f"{where}: two classes have one color")
    return tuple(found)


def _is_level(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255


def _names(value: Any, path: Path) -> tuple[str, ...]:
    """Check names: some, all different."""
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name for name in value):
        raise ValueError(f"{path}: expected the names of the classes, at least one, given {str(value)[:100]}")
    twice = sorted({name for name in value if value.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: these names are there twice: {', '.join(twice[:5])}")
    return tuple(value)
