"""The JSON files of a Transformers folder: architecture, preprocessing and class names.

Fields and values follow the published `OpenGVLab/internimage_*` folders; class names travel in `id2label`, which the
published ones leave out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from internimage.backbones.original.settings import known_settings
from internimage.errors import clean_name
from internimage.flow import Settings

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
MODEL_TYPE = "internimage"
MAX_JSON_BYTES = 16 * 2**20
RESAMPLE: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}


def read_settings(folder: Path) -> Settings | None:
    """Return the original-style settings in `config.json`, or None where the folder has none.

    Raises:
        ValueError: the file is no configuration of an InternImage.
    """
    content = _read(folder / CONFIG)
    if content is None:
        return None
    kind = content.get("model_type")
    if kind != MODEL_TYPE:
        raise ValueError(f"{folder / CONFIG}: model_type must be {MODEL_TYPE!r}, given {kind!r}")
    return known_settings(content)


def shard_names(path: Path) -> list[str]:
    """Return the files that an index of weights names; none for any other file.

    Raises:
        ValueError: the file is no index, or points outside of its folder.
    """
    if not path.name.endswith(".index.json"):
        return []
    table = (_read(path) or {}).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise ValueError(f"{path} is no index of weight files: it has no weight_map")
    outside = [name for name in table.values() if Path(name).name != name or "\\" in name]
    if outside:
        raise ValueError(f"{path} points outside of its folder: {outside[0]!r}")
    return sorted(set(table.values()))


def read_class_names(folder: Path) -> tuple[str, ...] | None:
    """Return the names in `id2label` if there is one for each class, else None."""
    content = _read(folder / CONFIG) or {}
    labels, count = content.get("id2label"), content.get("num_classes")
    if not isinstance(labels, dict) or len(labels) != count:
        return None
    names = [labels.get(str(i)) for i in range(len(labels))]
    named = [clean_name(name) for name in names if isinstance(name, str)]
    return tuple(named) if len(named) == count else None


def read_preprocess(folder: Path) -> dict[str, object] | None:
    """Return the fields of the preprocessing in `preprocessor_config.json`, or None where the folder has none.

    Raises:
        ValueError: the file asks for a step that this package does not have.
    """
    content = _read(folder / PREPROCESSOR)
    if content is None:
        return None
    source = folder / PREPROCESSOR
    try:
        crops = bool(content.get("do_center_crop", True))
        size = _side(content["crop_size"] if crops else content["size"])
        resample = content.get("resample", 3)
        if crops and _side(content["size"]) != size:
            raise ValueError(f"size {content['size']} and crop_size {content['crop_size']} must agree")
        return {
            "size": size,
            "crop": crops,
            "interpolation": RESAMPLE[resample],
            "mean": _triple(content["image_mean"]),
            "std": _triple(content["image_std"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{source}: cannot read the preprocessing: {error!r}") from error


def _read(path: Path) -> Settings | None:
    """Read a JSON object; None where there is no file."""
    if not path.exists():
        return None
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path} is larger than {MAX_JSON_BYTES} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object, given a {type(content).__name__}")
    return content


def _side(value: object) -> int:
    """Read a size in any of the published spellings: 224, {"shortest_edge": 224}, {"height": 224, "width": 224}."""
    sides = set(value.values()) if isinstance(value, dict) else {value}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int):
        raise ValueError(f"expected one square size, given {value!r}")
    return side


def _triple(value: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in value)
    return (red, green, blue)
