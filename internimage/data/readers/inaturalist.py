"""iNaturalist: `train2018.json`, and in `train2018_locations.json` when and where each image was taken."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from internimage.data.images.image_paths import ImagePaths
from internimage.data.labeled_files import LabeledFiles
from internimage.data.observation import Observation
from internimage.data.parts import PARTS, Part, part_of
from internimage.data.readers.layout import Layout, OpenPart
from internimage.data.untrusted.archives import Member
from internimage.data.untrusted.files import read_json
from internimage.data.untrusted.problems import ProblemLog

_FILE = re.compile(r"(train|val|test)(?:20\d\d)?\.json", re.IGNORECASE)


def find_inaturalist(root: Path) -> Layout | None:
    """Return the layout of a data set of iNaturalist, None where it is none."""
    files = sorted(path for path in root.glob("*.json") if _FILE.fullmatch(path.name)) if root.is_dir() else []
    parts: dict[Part | None, OpenPart] = {}
    for path in files:
        part = part_of(path.stem)
        if part in PARTS and part not in parts:
            parts[part] = partial(_open, root, path)
    return Layout(root, parts) if parts else None


def _open(root: Path, path: Path, _: object) -> LabeledFiles:
    """Open a part; every part lists all classes, so that they have the same numbers.

    Raises:
        ValueError: the file is damaged, or has no classes (as that of the test part).
        FileNotFoundError: not one image is there.
    """
    problems = ProblemLog("leave_out")
    content = read_json(path)
    images, categories = _entries(content, "images", path), _entries(content, "categories", path)
    names = [str(entry.get("name", entry.get("id"))) for entry in categories]
    if len(set(names)) < len(names):
        names = [f"{name} ({entry.get('id')})" for name, entry in zip(names, categories, strict=True)]
    index_of = {entry.get("id"): i for i, entry in enumerate(categories)}
    class_of = {entry.get("image_id"): entry.get("category_id") for entry in _entries(content, "annotations", path)}
    places = _places(path.with_name(f"{path.stem}_locations.json"))
    paths = ImagePaths(root, part=part_of(path.stem))
    files: list[tuple[Path | Member, int]] = []
    observations: list[Observation | None] = []
    for number, image in enumerate(images):
        try:
            key = image.get("id")
            if (label := index_of.get(class_of.get(key))) is None:
                raise ValueError(f"no class, or an unknown one: {class_of.get(key)!r:.60}")
            files.append((paths.find(image.get("file_name")), label))
        except ValueError as error:
            problems.add(path, f"images[{number}]", str(error))
            continue
        observations.append(_observation({**image, **places.get(key, {})}))
    paths.refuse_none(len(files), path)
    problems.finish(str(path))
    if not files:
        raise ValueError(f"{path} holds no image with a class")
    return LabeledFiles(root, files, tuple(names), observations if any(observations) else None)


def _entries(content: Any, key: str, path: Path) -> list[dict[str, Any]]:
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not found or not all(isinstance(entry, dict) for entry in found):
        raise ValueError(
            f"{path} holds no list of {key!r}; expected a file of iNaturalist with images, annotations and categories"
        )
    return found


def _places(path: Path) -> Mapping[object, dict[str, Any]]:
    """Return place and date of each image by its id; nothing where there is no such file."""
    content = read_json(path) if path.is_file() else []
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise ValueError(f"{path} is no list of places")
    return {entry.get("id"): {key: value for key, value in entry.items() if key != "id"} for entry in content}


def _observation(entry: Mapping[str, Any]) -> Observation | None:
    """Return date and place of an image; what is not stated, or not possible, is not known."""
    try:
        date = datetime.date.fromisoformat(str(entry.get("date"))[:10])
    except ValueError:
        date = None
    place = [entry.get("lat", entry.get("latitude")), entry.get("lon", entry.get("longitude"))]
    try:
        known = Observation(date, *(None if degrees is None else float(degrees) for degrees in place))
    except (TypeError, ValueError):
        known = Observation(date)
    return known if known != Observation() else None
