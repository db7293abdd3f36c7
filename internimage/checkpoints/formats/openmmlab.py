"""The containers of the original detectors and segmentors; the configuration text in them is read without running it.

The text is Python: assignments of `dict(...)`, lists and plain values. Anything else in it is refused.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from torch import Tensor

from internimage.checkpoints.header import HEADER_KEY, to_json
from internimage.errors import clean_name
from internimage.flow import Settings, TaskConfig
from internimage.types import Palette

MAX_TEXT = 2**20
PARTS = ("model", "test_pipeline")


def container(
    config: TaskConfig, state: Mapping[str, Tensor], *, palette: Palette | None = None
) -> dict[str, dict[str, object]]:
    """Return the content of a file as the original detectors and segmentors come in, our description among its notes.

    `state` holds the weights by original names.
    """
    meta: dict[str, object] = {HEADER_KEY: to_json(config)}
    if config.class_names is not None:
        meta["CLASSES"] = list(config.class_names)
    if palette is not None:
        meta["PALETTE"] = [list(color) for color in palette]
    return {"meta": meta, "state_dict": dict(state)}


def stored_settings(content: object) -> Settings | None:
    """Return "model" and "test_pipeline" of the configuration stored in a checkpoint file, or None.

    Example:
        >>> stored_settings({"meta": {"config": "model = dict(type='EncoderDecoder', depths=[4, 4])"}})
        {'model': {'type': 'EncoderDecoder', 'depths': [4, 4]}}
    """
    text = stored_meta(content).get("config")
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        return None
    try:
        tree = ast.parse(text)
        found = {
            target.id: _value(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and target.id in PARTS
        }
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return found if isinstance(found.get("model"), dict) else None


def stored_names(content: object) -> tuple[str, ...] | None:
    """Return the class names stored in a checkpoint file, a classifier's or those of other models, or None."""
    own = content.get("class_names") if isinstance(content, Mapping) else None
    for names in (own, stored_meta(content).get("CLASSES")):
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            return tuple(map(clean_name, names))
    return None


def stored_palette(content: object) -> Palette | None:
    """Return the colors of the classes stored in a checkpoint file, or None."""
    colors = stored_meta(content).get("PALETTE")
    if not isinstance(colors, list | tuple) or not colors:
        return None
    palette = []
    for color in colors:
        if not isinstance(color, list | tuple) or len(color) != 3:
            return None
        if not all(type(value) is int and 0 <= value <= 255 for value in color):
            return None
        palette.append((color[0], color[1], color[2]))
    return tuple(palette)


def stored_meta(content: object) -> Mapping[object, object]:
    """Return the notes beside the weights of an original container; nothing where there are none."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return meta if isinstance(meta, Mapping) else {}


def _value(node: ast.expr) -> object:
    """Return the plain value that an expression writes down.

    Raises:
        ValueError: it is no plain value.
    """
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != "dict" or node.args:
            raise ValueError("only dict(...) may be called")
        return {word.arg: _value(word.value) for word in node.keywords if word.arg is not None}
    if isinstance(node, ast.List):
        return [_value(element) for element in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(element) for element in node.elts)
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(k): _value(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}
    return ast.literal_eval(node)
