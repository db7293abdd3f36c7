"""The classes of own data, from a file beside the images: `classes.txt` and what other tools call it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from reprlib import repr as repr_short  # cuts long values
from typing import Any

from internimage.data.untrusted.files import read_text
from internimage.types import Palette

FILES = ("classes.json", "classes.txt")
# What other tools call the file; published data sets hold files of these names, too.
OTHER_FILES = ("labelmap.txt", "labels.txt", "obj.names", "classes.names", "label_map.pbtxt")
MAX_BYTES = 2**20

# A line of CVAT's labelmap.txt: "name:red,green,blue:parts:actions", the color may be missing.
_CVAT_HEADING = re.compile(r"#\s*label\s*:\s*color", re.IGNORECASE)
_PBTXT_ITEM = re.compile(r"item\s*\{([^{}]*)\}")
_PBTXT_FIELD = re.compile(r"""\b(id|name|display_name)\s*:\s*(?:"([^"]*)"|'([^']*)'|(\d+))""")


@dataclass(frozen=True)
class ClassList:
    """Names of the classes and, where masks are colored, their colors.

    Args:
        names: K names.
        palette: K colors (red, green, blue) 0..255, or None.
        ignored_colors: colors of masks that stand for no label.
        values: value 0..255 of each class in masks, or None where the first class has the value 0, and so on.
    """

    names: tuple[str, ...]
    palette: Palette | None = None
    ignored_colors: Palette = ()
    values: tuple[int, ...] | None = None


def find_class_list(root: Path, files: tuple[str, ...] = (*FILES, *OTHER_FILES)) -> ClassList | None:
    """Read the class list of a folder, None where it has none; of several files the one that is named first counts.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    path = next((root / name for name in files if (root / name).is_file()), None)
    return None if path is None else read_class_list(path)


def read_class_list(path: Path) -> ClassList:
    """Read a class list.

    Args:
        path: text file with one name on each line; JSON: a list of names, or {"classes": [names], "palette":
            [[red, green, blue], ...], "ignored_colors": [...]}, the last two optional; CVAT's `labelmap.txt` with
            colors; or TensorFlow's `label_map.pbtxt`.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    text = read_text(path, max_bytes=MAX_BYTES)
    if path.suffix == ".json":
        return _from_json(text, path)
    if path.suffix == ".pbtxt":
        return ClassList(_names(_pbtxt_names(text), path))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and _CVAT_HEADING.match(lines[0]):
        return _from_cvat(lines[1:], path)
    return ClassList(_names(lines, path))


def given_class_list(class_names: Sequence[str] | str | PathLike[str]) -> ClassList:
    """Return a class list from names or from the file that holds them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.
    """
    if not isinstance(class_names, str | PathLike):
        return ClassList(tuple(class_names))
    path = Path(class_names)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a file with the names of the classes, or the names")
    return read_class_list(path)


def class_list_setting(text: str, root: Path) -> ClassList:
    """Return the classes of a setting: names separated by commas, or the file that holds them.

    Args:
        text: "apple,pear" (one class: "apple,"), or the name of a file.
        root: folder of the data set, in which the file is looked for, too.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or names are empty or there twice.
    """
    path = next((path for path in (Path(text), root / text) if path.is_file()), None)
    if path is None and "," in text:
        return ClassList(_names([name.strip() for name in text.removesuffix(",").split(",")], Path("data.classes")))
    if path is None:
        raise FileNotFoundError(
            f"data.classes={text}: there is no such file; give one with the names of the classes, or the names "
            'separated by commas ("apple,pear", a single one "apple,")'
        )
    return read_class_list(path)


def _from_cvat(lines: list[str], path: Path) -> ClassList:
    """Read `labelmap.txt` of CVAT; the class "background" of its masks is one like others."""
    rows = [line.split(":") for line in lines if not line.startswith("#")]
    names = _names([row[0].strip() for row in rows], path)
    texts = [row[1].strip() if len(row) > 1 else "" for row in rows]
    if not all(re.fullmatch(r"\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}", text) for text in texts):
        return ClassList(names)
    return ClassList(names, colors([[int(level) for level in text.split(",")] for text in texts], f"{path}: colors"))


def _pbtxt_names(text: str) -> list[str]:
    """Return the names of the items, in the order of their ids."""
    items: list[tuple[int, str]] = []
    for number, item in enumerate(_PBTXT_ITEM.findall(text)):
        fields = {key: double or single or digits for key, double, single, digits in _PBTXT_FIELD.findall(item)}
        name = fields.get("display_name") or fields.get("name", "")
        items.append((int(fields["id"][:9]) if fields.get("id", "").isdecimal() else number, name))
    return [name for _, name in sorted(items, key=lambda entry: entry[0])]


def _from_json(text: str, path: Path) -> ClassList:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        raise ValueError(f"{path}: this is no JSON ({error})") from error
    content = {"classes": content} if isinstance(content, list) else content
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected a list of names or {{"classes": [...]}}, given {type(content).__name__}')
    unknown = sorted(content.keys() - {"classes", "palette", "ignored_colors", "values"})
    if unknown:
        known = "classes, palette, ignored_colors, values"
        raise ValueError(f"{path}: unknown entries {', '.join(name[:40] for name in unknown[:5])}; known are {known}")
    names = _names(content.get("classes"), path)
    palette = None if content.get("palette") is None else colors(content["palette"], f"{path}: palette")
    if palette is not None and len(palette) != len(names):
        raise ValueError(f"{path}: the palette must hold {len(names)} colors, one for each class, given {len(palette)}")
    values = _values(content.get("values"), len(names), path)
    if values is not None and palette is not None:
        raise ValueError(f"{path}: a palette is for colored masks, values for those of one channel; leave one out")
    return ClassList(names, palette, colors(content.get("ignored_colors", []), f"{path}: ignored_colors"), values)


def _values(value: Any, num_classes: int, path: Path) -> tuple[int, ...] | None:
    """Check the value of each class in masks."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(_is_level(entry) for entry in value):
        raise ValueError(f"{path}: values must be a list of numbers 0..255, given {repr_short(value)}")
    if len(value) != num_classes or len(set(value)) != num_classes:
        raise ValueError(f"{path}: expected {num_classes} different values, one for each class, given {len(value)}")
    return tuple(value)


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
            raise ValueError(f"{where}: a color must be three numbers 0..255, given {repr_short(color)}")
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
    twice = sorted(name for name, count in Counter(value).items() if count > 1)
    if twice:
        raise ValueError(f"{path}: these names are there twice: {', '.join(name[:60] for name in twice[:5])}")
    return tuple(value)
