"""The index of our own shards: what is where, so that nothing has to be searched for and damage is seen at once.

`index.json` names the classes and, of each part, its shards with their sizes and checksums; `train-00000.json` lists
the images of `train-00000.tar`.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from internimage.data.labeled_files import LabeledFiles, numbered_classes
from internimage.data.observation import Observation
from internimage.data.parts import PARTS, Part
from internimage.data.untrusted.archives import MAX_MEMBER_BYTES, DamagedArchive, Member
from internimage.data.untrusted.files import read_json

INDEX_FILE, FORMAT, LIST_FORMAT = "index.json", "internimage shards 1", "internimage shard 1"
UNFINISHED_FILE = "unfinished.json"  # until the last shard is written
WHOLE = "all"  # the part of a data set without parts


class Row(NamedTuple):
    """An image of a shard: its file, its class, when and where it was taken."""

    image: Member
    label: int
    observation: Observation | None


@dataclass(frozen=True)
class Shard:
    """A tar file of an index.

    Args:
        file: its name in the folder.
        images: their number.
        bytes: its size.
        sha256: checksum of its content.
    """

    file: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """The content of `index.json`.

    Args:
        class_names: K names.
        parts: shards of each part, in order; None is the part of a data set without parts.
        left_out: images that could not be read when the shards were written: name and reason.
    """

    class_names: tuple[str, ...]
    parts: dict[Part | None, tuple[Shard, ...]]
    left_out: tuple[str, ...] = ()

    @property
    def by_name(self) -> dict[str, tuple[Shard, ...]]:
        """The shards by what the files call their part."""
        return {part or WHOLE: shards for part, shards in self.parts.items()}

    def to_plain(self) -> dict[str, Any]:
        """Return what `read_index` reads."""
        parts = {name: [vars(shard) for shard in shards] for name, shards in self.by_name.items()}
        return {"format": FORMAT, "classes": self.class_names, "parts": parts, "left_out": self.left_out}


def read_index(folder: Path) -> Index | None:
    """Return the index of a folder of shards, None where it has none of ours.

    Raises:
        ValueError: the index is damaged, or the shards are not all written.
    """
    path = folder / INDEX_FILE
    if (folder / UNFINISHED_FILE).is_file():
        raise ValueError(f"the shards in {folder} are not complete; run the same `internimage shard` again")
    content = read_json(path) if path.is_file() else None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return None
    try:
        parts: dict[Part | None, tuple[Shard, ...]] = {
            _part(name): tuple(_shard(row) for row in rows) for name, rows in content["parts"].items()
        }
        return Index(tuple(map(_text, content["classes"])), parts, tuple(map(_text, content["left_out"])))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); write the shards again, or copy it again") from error


def open_part(folder: Path, index: Index, part: Part | None, _: object = None) -> LabeledFiles:
    """Return the images of a part; all parts have the classes of the index.

    Raises:
        DamagedArchive: a ValueError; a shard is missing, not complete, or its list is damaged.
    """
    rows: list[Row] = []
    for shard in index.parts[part]:
        path = folder / shard.file
        size = path.stat().st_size if path.is_file() else -1
        if size != shard.bytes:
            given = f"it has {size} bytes" if size >= 0 else "it is missing"
            raise DamagedArchive(f"{path}: {INDEX_FILE} lists it with {shard.bytes} bytes, but {given}; copy it again")
        found = read_rows(path)
        if len(found) != shard.images:
            raise DamagedArchive(f"{path}: {len(found)} images are listed but {INDEX_FILE} says {shard.images}")
        rows += found
    numbered_classes([row.label for row in rows], index.class_names, folder)
    observations = [row.observation for row in rows]
    files = [(row.image, row.label) for row in rows]
    return LabeledFiles(folder, files, index.class_names, observations if any(observations) else None)


def read_rows(shard: Path) -> list[Row]:
    """Return the images of a shard, from the list beside it.

    Raises:
        DamagedArchive: a ValueError; the list is missing, damaged, or leads out of the shard.
    """
    path, end = shard.with_suffix(".json"), shard.stat().st_size
    try:
        content = read_json(path)
        if content["format"] != LIST_FORMAT:
            raise ValueError(f"format {content['format']!r}, expected {LIST_FORMAT!r}")
        return [_row(shard, end, **row) for row in content["images"]]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DamagedArchive(f"{path} is no list of the images in {shard.name} ({error}); copy it again") from error


def _row(
    shard: Path, end: int, *, name: str, start: int, size: int, label: int, taken: list[Any] | None = None, **_: object
) -> Row:
    if type(name) is not str or not all(type(value) is int and value >= 0 for value in (start, size, label)):
        raise ValueError(f"expected name, start, size and label, given {[name, start, size, label]!r:.100}")
    if start + size > end or size > MAX_MEMBER_BYTES:
        raise ValueError(f"{name!r:.100} lies beyond the end of the shard")
    return Row(Member(shard, name, start, size), label, None if taken is None else _observation(*taken))


def taken(observation: Observation | None) -> list[object] | None:
    """Return date, latitude and longitude for a list of images."""
    if observation is None:
        return None
    date = observation.date
    return [None if date is None else date.isoformat(), observation.latitude, observation.longitude]


def _observation(date: str | None, latitude: float | None, longitude: float | None) -> Observation:
    return Observation(None if date is None else datetime.date.fromisoformat(date), latitude, longitude)


def _part(name: str) -> Part | None:
    found = {WHOLE: None, **{part: part for part in PARTS}}
    return found[name]


def _shard(row: dict[str, Any]) -> Shard:
    shard = Shard(_text(row["file"]), int(row["images"]), int(row["bytes"]), _text(row["sha256"]))
    if Path(shard.file).name != shard.file or not shard.file.endswith(".tar"):
        raise ValueError(f"{shard.file!r:.100} is no name of a shard")
    return shard


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, given {value!r:.100}")
    return value
