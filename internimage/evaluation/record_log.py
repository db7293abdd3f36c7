"""What was found in each image, in a file that survives a cut evaluation: one line of JSON for each image."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

import torch
from torch import nn

from internimage import parallel
from internimage.data import ImageDataset
from internimage.data.fingerprint import DataChanges, DataFingerprint
from internimage.files import locked, remove_leftovers, replacing, writing

logger = logging.getLogger(__name__)

Record = TypeVar("Record")
Entry = Mapping[str, Any]
SAMPLED_VALUES = 1024  # of each tensor, for a fingerprint


@dataclass(frozen=True)
class RecordFormat(Generic[Record]):
    """How a task writes down what it found in an image.

    Args:
        kind: what the records are called.
        version: number of the format.
        to_plain: from a record to a dictionary of JSON.
        from_plain: the way back; raises an error where something is wrong.
        holds_ground_truth: whether a record depends on the ground truth, not on the image alone.
    """

    kind: str
    version: int
    to_plain: Callable[[Record], Entry]
    from_plain: Callable[[Entry], Record]
    holds_ground_truth: bool

    @property
    def name(self) -> str:
        """What the first line of a file says."""
        return f"internimage {self.kind} {self.version}"


def model_fingerprint(model: nn.Module) -> str:
    """Return a text that differs between models: of their settings, and of some values of every tensor."""
    digest = hashlib.sha256(str(getattr(model, "config", "")).encode())
    for name, value in itertools.chain(model.named_parameters(), model.named_buffers()):
        flat = value.detach().flatten()
        sample = flat[:: max(1, flat.numel() // SAMPLED_VALUES)][:SAMPLED_VALUES]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(sample.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def record_log(
    path: Path | None, form: RecordFormat[Record], model: nn.Module, settings: str, dataset: ImageDataset[Any]
) -> Iterator[RecordLog[Record]]:
    """Open the records of one evaluation at a time; without a path they are in memory only.

    What belongs to a model, to `settings` (how images are read and views of them merged) and to a data set is known
    again; see `RecordLog`. Of processes that share an evaluation, each but the first has a file of its own beside the
    path until what it found stands there, too.

    Raises:
        BlockingIOError: another evaluation works with the file.
        ValueError: the file is of another kind or damaged, or belongs to something else.
    """
    if path is None:
        yield RecordLog()
        return
    identity = {"model": model_fingerprint(model), "way of looking": settings}
    opened = partial(FileLog, form=form, identity=identity, data=DataFingerprint.of(dataset))
    with (_first_log if parallel.rank() == 0 else _other_log)(path, opened) as log:
        yield log
        parallel.gathered(None)  # before the files of the others go


@contextmanager
def _first_log(path: Path, opened: Callable[[Path], FileLog[Record]]) -> Iterator[FileLog[Record]]:
    """Open the file itself, together with what other processes of an evaluation that was cut had found."""
    with locked(path.with_name(f".{path.name}.lock")):
        remove_leftovers(path.parent, (path.name,))
        with closing(opened(path)) as log:
            for part in sorted(path.parent.glob(f"{escape(path.name)}.part*")):
                with closing(opened(part)) as found:
                    log.take_over(found.records)
                part.unlink()
            parallel.gathered(log.records)
            yield log


@contextmanager
def _other_log(path: Path, opened: Callable[[Path], FileLog[Record]]) -> Iterator[FileLog[Record]]:
    """Open a file for what this process finds; the first one takes it over, at the end or after a cut."""
    done = parallel.gathered({})[0]
    part = path.with_name(f"{path.name}.part{parallel.rank()}")
    with closing(opened(part)) as log:
        log.records.update(done)
        yield log
    part.unlink()


class RecordLog(Generic[Record]):
    """The record of each image that is done, by its index."""

    def __init__(self) -> None:
        self.records: dict[int, Record] = {}

    def add(self, index: int, record: Record) -> None:
        """Keep what was found in image `index`."""
        self.records[index] = record

    def take_over(self, records: Mapping[int, Record]) -> None:
        """Keep what other processes have found; the first process writes it down."""
        for index in sorted(records.keys() - self.records.keys()):
            if parallel.rank() == 0:
                self.add(index, records[index])
            else:
                self.records[index] = records[index]

    def add_unreadable(self, index: int, reason: str) -> None:
        """Note why image `index` cannot be read; the next evaluation tries again."""


class FileLog(RecordLog[Record]):
    """A log whose records are also in a file, appended to while an evaluation goes on.

    Images that have changed since are measured again; so are those whose ground truth has, where records hold it.

    Args:
        path: the file; what it holds already is kept, a line that a cut run left unfinished is dropped.
        form: how records are written down.
        identity: what the records belong to besides the data (model, settings); kept in the first line.
        data: what the data set is made of now; kept in the first line, too.

    Raises:
        ValueError: the file is of another kind or damaged, or belongs to something else.
    """

    def __init__(
        self, path: Path, form: RecordFormat[Record], identity: Mapping[str, str], data: DataFingerprint
    ) -> None:
        super().__init__()
        self.path, self.form, self.data = path, form, data
        self._header = {"format": form.name, **identity, "data": data.to_plain()}
        self._errors: dict[int, str] = {}
        self._changes = DataChanges()
        path.parent.mkdir(parents=True, exist_ok=True)
        end = self._read(identity) if path.exists() else 0
        if end and not self._changes.are_none:
            self._drop_changed()
            end = path.stat().st_size
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._file.truncate(end)
        if end == 0:
            self._write(self._header)
        self._announce()

    def _announce(self) -> None:
        """Say that an evaluation does not begin at its beginning."""
        done, total = len(self.records), len(self.data.names)
        if done >= total > 0:
            logger.info("all %d images were measured before: %s; remove it to measure them anew", total, self.path)
        elif done:
            logger.info("going on after %d of %d images, see %s", done, total, self.path)

    def _drop_changed(self) -> None:
        """Write the file anew without the images that are to be measured again."""
        changed = {*self._changes.images, *(self._changes.targets if self.form.holds_ground_truth else ())}
        what = "they are looked at again" if changed else "what was found stays and is compared with it"
        logger.warning("%s: %s since it was written; %s", self.path, "; ".join(self._changes.texts()), what)
        self.records = {i: record for i, record in self.records.items() if self.data.names[i] not in changed}
        errors = {i: reason for i, reason in self._errors.items() if self.data.names[i] not in changed}
        with replacing(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            for entry in (self._header, *map(self._line, self.records), *map(_error_line, errors, errors.values())):
                file.write(_json(entry))

    def _read(self, identity: Mapping[str, str]) -> int:
        """Take over the finished lines; return where they end, 0 where not even the first is there."""
        end = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                is_finished = line.endswith(b"\n")
                if number == 1:
                    self._check(line, identity, is_finished=is_finished)
                elif is_finished:
                    self._take(line, number)
                end += len(line) if is_finished else 0
        return end

    def _check(self, line: bytes, identity: Mapping[str, str], *, is_finished: bool) -> None:
        """Compare the first line with what is measured now; one that was cut short is written anew."""
        try:
            entry = json.loads(line)
        except ValueError:
            if not is_finished:
                return
            entry = {}
        found = entry.get("format") if isinstance(entry, dict) else None
        if found != self.form.name:
            is_older = str(found).startswith(f"internimage {self.form.kind} ")
            what = "was begun by another release" if is_older else f"is no {self.form.kind} file"
            raise ValueError(f"{self.path} {what}; choose another folder, or remove the file to start afresh")
        differing = [name for name, value in identity.items() if entry.get(name) != value]
        self._changes = DataFingerprint.from_plain(entry.get("data")).changes(self.data)
        if self._changes.classes or self._changes.samples:
            differing.insert(0, "data set")
        if differing:
            raise ValueError(
                f"{self.path} holds {self.form.kind} with another {' and another '.join(differing)}; choose another "
                f"folder, or remove the file to start afresh{''.join(f'; {text}' for text in self._changes.texts())}"
            )

    def _take(self, line: bytes, number: int) -> None:
        try:
            entry = json.loads(line)
            index = int(entry["index"])
            if not 0 <= index < len(self.data.names):
                raise IndexError(f"there is no image {index}")
            if "error" in entry:
                self._errors[index] = str(entry["error"])
            else:
                self.records[index] = self.form.from_plain(entry)
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError, OverflowError) as error:
            raise ValueError(
                f"{self.path}, line {number}: no line of a {self.form.kind} file ({error!r}); choose another folder, "
                "or remove the file"
            ) from error

    def add(self, index: int, record: Record) -> None:
        """Keep what was found in image `index`, and write it down."""
        super().add(index, record)
        self._write(self._line(index))

    def add_unreadable(self, index: int, reason: str) -> None:
        """Write down why image `index` cannot be read; the next evaluation tries again."""
        self._write(_error_line(index, reason))

    def _line(self, index: int) -> Entry:
        return {"index": index, **self.form.to_plain(self.records[index])}

    def _write(self, entry: Entry) -> None:
        with writing(self.path):
            self._file.write(_json(entry))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with writing(self.path):
            self._file.close()


def _error_line(index: int, reason: str) -> Entry:
    return {"index": index, "error": reason}


def _json(entry: Entry) -> str:
    return json.dumps(entry, separators=(",", ":")) + "\n"
