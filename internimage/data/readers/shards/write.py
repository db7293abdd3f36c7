"""Writing a classification data set as tar shards, which can be cut at any time and goes on where it stopped."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from internimage.data.dataset import ImageDataset
from internimage.data.fingerprint import DataFingerprint
from internimage.data.images.raster import to_rgb
from internimage.data.labeled_files import ImageContent, WithFiles
from internimage.data.parts import Part
from internimage.data.readers.open_labels import find_layout
from internimage.data.readers.shards.index import (
    INDEX_FILE,
    LIST_FORMAT,
    UNFINISHED_FILE,
    WHOLE,
    Index,
    Shard,
    read_index,
    taken,
)
from internimage.data.untrusted.files import read_json
from internimage.files import json_text, locked, remove_leftovers, replacing

LOCK_FILE = ".shards.lock"
SHARD_BYTES = 512 << 20


@dataclass(frozen=True)
class ShardSettings:
    """How shards are written.

    Args:
        max_bytes: a shard is closed before it would have more; one image at least goes into each.
        seed: order of the images: shuffled by this seed, or None as they are listed.
        max_unreadable: images that cannot be read and are left out; more end the writing.

    Raises:
        ValueError: a number is out of its range.
    """

    max_bytes: int = SHARD_BYTES
    seed: int | None = None
    max_unreadable: int = 50

    def __post_init__(self) -> None:
        if self.max_bytes < 1 or (self.seed or 0) < 0 or self.max_unreadable < 0:
            raise ValueError(f"max_bytes must be at least 1, seed and max_unreadable at least 0, given {self}")


def write_shards(
    data: str | PathLike[str],
    out: str | PathLike[str],
    settings: ShardSettings | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """Write every part of a classification data set as tar shards with an index.

    Image files are copied byte for byte under running numbers; each has its class beside it (`00000000.jpg`,
    `00000000.cls`), as webdataset and timm read them. A run that was cut goes on after its last whole shard.

    Args:
        data: a data set that `open_dataset` reads.
        out: folder of the shards.
        settings: sizes and order; None takes the defaults.
        progress: called with (images done, images in all) after each image.

    Returns:
        What `index.json` holds.

    Raises:
        ValueError: the data is damaged, its parts have different classes, more images cannot be read than are
            bearable, or `out` holds shards of other data or settings.
        BlockingIOError: another process writes there.
    """
    settings, out = settings or ShardSettings(), Path(out)
    layout = find_layout(Path(data))
    parts: dict[Part | None, ImageDataset[int]] = {part: layout.open(part) for part in layout.parts}
    class_names = next(iter(parts.values())).class_names
    if other := [part for part, dataset in parts.items() if dataset.class_names != class_names]:
        raise ValueError(
            f"the part {other[0]!r} of {data} has other classes than the first one, and no training part says which "
            "count; write each part alone"
        )
    made_of = {
        "settings": asdict(settings),
        "data": {part or WHOLE: DataFingerprint.of(dataset).digest for part, dataset in parts.items()},
    }
    with locked(out / LOCK_FILE):
        remove_leftovers(out, [INDEX_FILE, UNFINISHED_FILE])
        if _is_complete(out, made_of):
            (out / UNFINISHED_FILE).unlink(missing_ok=True)
            index = read_index(out)
            assert index is not None, "its settings were just read"
            return index
        writer = _Writer(out, settings, progress, total=sum(map(len, parts.values())))
        shards: dict[Part | None, tuple[Shard, ...]] = {}
        for part, dataset in parts.items():
            shards[part] = writer.write(part or WHOLE, dataset)
        index = Index(class_names, shards, tuple(writer.left_out))
        _write_json(out / INDEX_FILE, {**index.to_plain(), "made_of": made_of})
        (out / UNFINISHED_FILE).unlink()
    return index


def _is_complete(out: Path, made_of: dict[str, Any]) -> bool:
    """Whether a folder holds these shards already; notes what they are made of where it is empty.

    Raises:
        ValueError: it holds others.
    """
    for name in (INDEX_FILE, UNFINISHED_FILE):
        if (out / name).is_file():
            content = read_json(out / name)
            if not isinstance(content, dict) or content.get("made_of") != made_of:
                raise ValueError(
                    f"{out} holds shards of other data or with other settings ({name}); choose another folder, or "
                    "remove them"
                )
            return name == INDEX_FILE
    _write_json(out / UNFINISHED_FILE, {"made_of": made_of})
    return False


class _Writer:
    """Writes the shards of one part after the other."""

    def __init__(
        self, out: Path, settings: ShardSettings, progress: Callable[[int, int], None] | None, *, total: int
    ) -> None:
        self.out, self.settings, self.total = out, settings, total
        self.progress = progress or (lambda done, total: None)
        self.done = 0
        self.left_out: list[str] = []

    def write(self, name: str, dataset: ImageDataset[int]) -> tuple[Shard, ...]:
        """Write the shards of a part that are not there yet."""
        count, seed = len(dataset), self.settings.seed
        order = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
        shards: list[Shard] = []
        start = 0
        while start < count:
            path = self.out / f"{name}-{len(shards):05d}.tar"
            note = _finished(path)
            if note is None:
                remove_leftovers(self.out, [path.name, path.with_suffix(".json").name])
                note = self._write_shard(path, dataset, order, start)
            self.left_out += note["left_out"]
            shards.append(Shard(path.name, len(note["images"]), note["bytes"], note["sha256"]))
            self.done += note["next"] - start
            start = note["next"]
            self.progress(self.done, self.total)
        return tuple(shards)

    def _write_shard(self, path: Path, dataset: ImageDataset[int], order: np.ndarray, start: int) -> dict[str, Any]:
        """Write a shard and the list of its images."""
        rows: list[dict[str, object]] = []
        left_out: list[str] = []
        position = start
        with replacing(path) as temporary:
            with tarfile.TarFile(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
                for position in range(start, len(order)):
                    try:
                        image = _image(dataset, int(order[position]))
                    except (ValueError, OSError) as error:
                        left_out.append(str(error))
                        self._check_left_out(left_out)
                        continue
                    if rows and archive.offset + len(image.content) > self.settings.max_bytes:
                        break
                    key = f"{position:08d}"
                    member = f"{key}{Path(image.name).suffix.lower()}"
                    begin = _add(archive, member, image.content)
                    _add(archive, f"{key}.cls", str(image.label).encode())
                    row = {"name": member, "start": begin, "size": len(image.content), "label": image.label}
                    known = {} if image.observation is None else {"taken": taken(image.observation)}
                    rows.append({**row, "file": image.name, **known})
                    self.progress(self.done + position + 1 - start, self.total)
                else:
                    position = len(order)
            facts = {"bytes": temporary.stat().st_size, "sha256": _sha256(temporary)}
        note = {"format": LIST_FORMAT, **facts, "next": position, "left_out": left_out, "images": rows}
        _write_json(path.with_suffix(".json"), note)
        return note

    def _check_left_out(self, here: list[str]) -> None:
        texts = [*self.left_out, *here]
        if len(texts) > self.settings.max_unreadable:
            listed = "".join(f"\n  {text}" for text in texts[:10])
            limit = f"more than {self.settings.max_unreadable} images cannot be read (max_unreadable)"
            raise ValueError(f"{limit}; the first ones:{listed}")


def _image(dataset: ImageDataset[int], index: int) -> ImageContent:
    """Return the file of an image; what lies in no file becomes PNG, which changes no pixel."""
    if isinstance(dataset, WithFiles):
        found = dataset.content(index)
        if not found.content:
            raise ValueError(f"{found.name}: the file is empty (0 bytes)")
        return found
    sample = dataset[index]
    image = to_rgb(sample.image)
    red, *others = image.split()
    png = io.BytesIO()
    (red if all(red == other for other in others) else image).save(png, "PNG")
    return ImageContent(f"{sample.name}.png", png.getvalue(), sample.target, sample.observation)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a file to an archive, the same at every time and for every user; return where its content begins."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    start = archive.offset + tarfile.BLOCKSIZE
    archive.addfile(info, io.BytesIO(content))
    return start


def _finished(path: Path) -> dict[str, Any] | None:
    """Return the list of a shard that was written to its end, else None."""
    try:
        note = read_json(path.with_suffix(".json"))
        return note if note["format"] == LIST_FORMAT and path.stat().st_size == note["bytes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json_text(content, indent=None), encoding="utf-8")
