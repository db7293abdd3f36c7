"""What a data set is made of, so that it is known again: classes, files, ground truth; no image is decoded.

A file that was copied, moved with its folder or touched is the same: names, sizes and contents count, times do not.

Shape legend: N samples.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from internimage.data.class_names import some_names
from internimage.data.dataset import ImageDataset, SampleSource, Selection, Unreadable, read_sample

# The contents of all files are read where they are no more than this together; else those of some, evenly chosen.
WHOLE_BYTES = 2**29
SAMPLED_FILES = 512
# Of a large file among those, this much at its start and at its end.
END_BYTES = 2**22
# Samples of a data set that does not say where its samples come from, which are read instead.
READ_SAMPLES = 32
READERS = 8
SHOWN = 3
# What a fingerprint's lists are called in the records of runs.
KEYS = ("class_names", "names", "images", "truths")


@dataclass(frozen=True)
class DataChanges:
    """How a data set differs from what it was, as parts of sentences; empty where it does not.

    Args:
        classes: other classes, or their order.
        samples: samples that were added or removed, or their order.
        images: names of the samples whose image is another one.
        targets: names of the samples whose ground truth is another one.
    """

    classes: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    @property
    def are_none(self) -> bool:
        """Whether the data set is the same."""
        return not (self.classes or self.samples or self.images or self.targets)

    def texts(self) -> list[str]:
        """Return every difference with the first examples."""
        texts = [*self.classes, *self.samples]
        if self.images:
            texts.append(f"{_counted(self.images, 'image')} replaced ({_some(self.images)})")
        if self.targets:
            texts.append(f"ground truth of {_counted(self.targets, 'image')} changed ({_some(self.targets)})")
        return texts


@dataclass(frozen=True)
class DataFingerprint:
    """What a data set is made of.

    Args:
        class_names: names of the classes in their order.
        names: N names of samples in their order.
        images: for each of them the size of its image file in bytes, and a digest where it was read.
        targets: the same of its ground truth.
    """

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    images: tuple[str, ...]
    targets: tuple[str, ...]

    @classmethod
    def of(cls, dataset: ImageDataset[Any]) -> DataFingerprint:
        """Take the fingerprint of a data set: one look at each file, and a bounded number of bytes."""
        sources = _sources(dataset)
        home = _common_folder(source.image for source in sources)
        names = tuple(source.name or _below(source.image, home) for source in sources)
        images = _entries([source.image for source in sources])
        targets = _entries([source.target for source in sources])
        notes = (source.target_note for source in sources)
        noted = tuple(f"{note}{target}" for note, target in zip(notes, targets, strict=True))
        return cls(tuple(map(str, dataset.class_names)), names, images, noted)

    @property
    def _parts(self) -> tuple[tuple[str, ...], ...]:
        return (self.class_names, self.names, self.images, self.targets)

    @property
    def digest(self) -> str:
        """A short text that differs between data sets."""
        whole = hashlib.blake2b(digest_size=16)
        for part in self._parts:
            whole.update(repr(part).encode("utf-8", "surrogatepass"))
        return whole.hexdigest()

    def changes(self, present: DataFingerprint) -> DataChanges:
        """Return how a data set has changed since this fingerprint was taken."""
        before = dict(zip(self.names, zip(self.images, self.targets, strict=True), strict=True))
        after = dict(zip(present.names, zip(present.images, present.targets, strict=True), strict=True))
        both = [name for name in after if name in before]
        old, new = self.class_names, present.class_names
        other_order = f"classes in another order (first {_some(old)}, now {_some(new)})"
        images_reordered = f"{_counted(present.names)} in another order or another number"
        return DataChanges(
            _list_changes(old, new, ("class", "classes"), other_order),
            _list_changes(self.names, present.names, ("image", "images"), images_reordered),
            tuple(name for name in both if _differ(before[name][0], after[name][0])),
            tuple(name for name in both if _differ(before[name][1], after[name][1])),
        )

    def to_plain(self) -> dict[str, list[str]]:
        """Return lists for JSON, see `from_plain`."""
        return {key: list(part) for key, part in zip(KEYS, self._parts, strict=True)}

    @classmethod
    def from_plain(cls, values: object) -> DataFingerprint:
        """Return what `to_plain` wrote.

        Raises:
            ValueError: it is something else.
        """
        lists = [values.get(key) for key in KEYS] if isinstance(values, Mapping) else []
        parts = [tuple(map(str, part)) for part in lists if isinstance(part, list)]
        if len(parts) < len(KEYS) or any(list(part) != given for part, given in zip(parts, lists, strict=True)):
            raise ValueError(f"a fingerprint of a data set holds lists of texts: {', '.join(KEYS)}")
        if len({len(part) for part in parts[1:]}) != 1:
            raise ValueError("a fingerprint of a data set holds one name, image and ground truth for each sample")
        return cls(*parts)


def _sources(dataset: ImageDataset[Any]) -> list[SampleSource]:
    """Return where every sample comes from; what a foreign data set does not tell is read, for some samples."""
    indices: np.ndarray = np.arange(len(dataset))
    whole: Any = dataset
    while isinstance(whole, Selection):
        indices, whole = whole.indices[indices], whole.dataset
    if hasattr(whole, "source"):
        return [whole.source(i) for i in indices.tolist()]
    step = max(1, -(-len(indices) // READ_SAMPLES))
    return [_read_source(whole, i, is_read=place % step == 0) for place, i in enumerate(indices.tolist())]


def _read_source(dataset: ImageDataset[Any], index: int, *, is_read: bool) -> SampleSource:
    """Describe a sample of a data set that does not tell where it comes from."""
    entry = read_sample(dataset, index) if is_read else None
    if entry is None or isinstance(entry, Unreadable):
        return SampleSource(b"", b"" if entry is None else entry.reason.encode(), name=f"sample {index}")
    target = entry.target.tobytes() if isinstance(entry.target, np.ndarray) else repr(entry.target).encode()
    return SampleSource(np.asarray(entry.image).tobytes(), target, name=f"sample {index}")


def _entries(contents: Sequence[Path | bytes]) -> tuple[str, ...]:
    """Return size and digest of files and of contents in memory."""
    paths = list(dict.fromkeys(content for content in contents if isinstance(content, Path)))
    sizes = {path: _size(path) for path in paths}
    read = [path for path in paths if sizes[path] >= 0]
    is_whole = sum(sizes[path] for path in read) <= WHOLE_BYTES
    if not is_whole:
        read = read[:: max(1, len(read) // SAMPLED_FILES)]
    with ThreadPoolExecutor(READERS) as readers:
        found = readers.map(partial(_file_digest, is_whole=is_whole), read)
        digests = dict(zip(read, found, strict=True))
    known = {path: f"{sizes[path]}:{digests[path]}" if digests.get(path) else str(sizes[path]) for path in paths}
    return tuple(known[entry] if isinstance(entry, Path) else f"{len(entry)}:{_digest(entry)}" for entry in contents)


def _size(path: Path) -> int:
    """Return the size of a file in bytes, -1 where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - Path.stat takes twice as long, which a million files feel
    except OSError:
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def _file_digest(path: Path, *, is_whole: bool) -> str:
    """Return the digest of a file, or of its two ends; empty where it cannot be read."""
    digest = hashlib.blake2b(digest_size=8)
    try:
        with path.open("rb") as file:
            while block := file.read(END_BYTES):
                digest.update(block)
                rest = os.fstat(file.fileno()).st_size - file.tell()
                if not is_whole and rest > END_BYTES:
                    file.seek(rest - END_BYTES, os.SEEK_CUR)
    except OSError:
        return ""
    return digest.hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _differ(before: str, after: str) -> bool:
    """Compare two entries; where one of them was not read, sizes decide."""
    if before == after:
        return False
    (size, _, digest), (other_size, _, other_digest) = before.rpartition(":"), after.rpartition(":")
    if not size or not other_size:  # one without a digest, which then stands alone
        return (size or digest) != (other_size or other_digest)
    return True


def _list_changes(
    before: Sequence[str], after: Sequence[str], words: tuple[str, str], reordered: str
) -> tuple[str, ...]:
    """Say which names came and went, or `reordered` where none did and the lists differ all the same."""
    if before == after:
        return ()
    known, present = set(before), set(after)
    gone, new = [name for name in before if name not in present], [name for name in after if name not in known]
    changes = ((gone, "removed"), (new, "added"))
    texts = [f"{_counted(names, *words)} {what} ({_some(names)})" for names, what in changes if names]
    return tuple(texts) or (reordered,)


def _counted(entries: Sequence[str], one: str = "image", many: str = "images") -> str:
    return f"{len(entries)} {one if len(entries) == 1 else many}"


def _some(names: Sequence[str]) -> str:
    return some_names(names, shown=SHOWN)


def _common_folder(contents: Iterable[Path | bytes]) -> str:
    """Return the deepest folder that holds all files; names below it stay when it moves."""
    # As text: that of Path.parent takes twice as long, which a million files feel.
    folders = {os.path.dirname(content) for content in contents if isinstance(content, Path)}  # noqa: PTH120
    try:
        return os.path.commonpath(folders) if folders else ""
    except ValueError:  # several drives
        return ""


def _below(content: Path | bytes, folder: str) -> str:
    assert isinstance(content, Path), "samples in memory have names"
    return str(content)[len(folder) :].lstrip("\\/").replace("\\", "/")
