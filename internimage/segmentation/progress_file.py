"""What an evaluation has counted so far, in a file that a cut run goes on from."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from internimage.data import ImageDataset
from internimage.data.fingerprint import DataChanges, DataFingerprint
from internimage.evaluation.confusion import PixelConfusion
from internimage.evaluation.identity import announce, older_data_fingerprint, warn_unchecked
from internimage.files import locked, remove_leftovers, replacing
from internimage.segmentation.report import ImageScore

FORMAT, OLDER_FORMAT = "internimage segmentation progress 2", "internimage segmentation progress 1"
MAX_BYTES = 2**30

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """The images that are done: those with numbers below `done`.

    Args:
        confusion: their pixels.
        done: how many images of the data set were looked at.
        images: the figures of those that could be read.
        skipped: (number, reason) of the others.
    """

    confusion: PixelConfusion
    done: int = 0
    images: list[ImageScore] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)


@contextmanager
def open_progress(
    path: Path | None, identity: Mapping[str, str], dataset: ImageDataset[Any], *, save_seconds: float
) -> Iterator[ProgressFile]:
    """Open a progress file for one process at a time, see `ProgressFile`.

    Raises:
        BlockingIOError: another process works with the file.
    """
    if path is None:
        yield ProgressFile(None, identity, dataset, save_seconds=save_seconds)
        return
    with locked(path.with_name(f".{path.name}.lock")):
        remove_leftovers(path.parent, (path.name,))
        yield ProgressFile(path, identity, dataset, save_seconds=save_seconds)


class ProgressFile:
    """Writes progress now and then, whole or not at all.

    Args:
        path: the file, None to keep nothing.
        identity: what the progress belongs to besides the data: model, settings.
        dataset: the data set, to be known again.
        save_seconds: time between two writes.
    """

    def __init__(
        self, path: Path | None, identity: Mapping[str, str], dataset: ImageDataset[Any], *, save_seconds: float
    ) -> None:
        self.path, self.identity, self.dataset, self.save_seconds = path, dict(identity), dataset, save_seconds
        self.data = None if path is None else DataFingerprint.of(dataset)
        self._last = time.monotonic()

    def load(self, num_classes: int, num_samples: int) -> Progress:
        """Return the progress in the file, or none where there is no file or images or masks have changed since.

        Raises:
            ValueError: the file is damaged, or belongs to another model, data set or way of looking.
        """
        if self.path is None or not self.path.exists():
            return Progress(PixelConfusion.empty(num_classes))
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES} bytes")
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["format"] not in (FORMAT, OLDER_FORMAT):
                raise ValueError(f"its format is {str(content['format'])[:80]!r}, expected {FORMAT!r}")
            differing = [name for name, value in self.identity.items() if content["identity"].get(name) != value]
            changes = self._data_changes(content)
            if changes.classes or changes.samples:
                differing.insert(0, "data set")
            is_other = differing or changes.images or changes.truths
            progress = None if is_other else _progress(content, num_classes, num_samples)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, RuntimeError) as error:
            raise ValueError(
                f"{self.path} is no progress of a segmentation evaluation ({error}); choose another file, or remove it"
            ) from error
        if differing:
            raise ValueError(
                f"{self.path} holds progress with another {' and another '.join(differing)}; choose another file, or "
                f"remove it to start afresh{''.join(f'; {text}' for text in changes.texts())}"
            )
        if progress is None:
            logger.warning("%s: %s since it was written; counting anew", self.path, "; ".join(changes.texts()))
            return Progress(PixelConfusion.empty(num_classes))
        announce(self.path, progress.done, num_samples)
        return progress

    def _data_changes(self, content: Mapping[str, Any]) -> DataChanges:
        """Return how the data differ from those that the progress was made with."""
        assert self.data is not None and self.path is not None
        if content["format"] == FORMAT:
            return DataFingerprint.from_plain(content["data"]).changes(self.data)
        if content["identity"]["data set"] != older_data_fingerprint(self.dataset):
            return DataChanges(samples=("its classes or images are others",))
        warn_unchecked(self.path)
        return DataChanges()

    def save(self, progress: Progress, *, is_due: bool = False) -> None:
        """Write the progress if enough time has passed or `is_due` says so."""
        if self.path is None or self.data is None or not (is_due or time.monotonic() - self._last >= self.save_seconds):
            return
        content = {
            "format": FORMAT,
            "identity": self.identity,
            "data": self.data.to_plain(),
            "done": progress.done,
            "confusion": progress.confusion.counts.tolist(),
            "pictures": [[s.index, s.name, _or_none(s.miou), _or_none(s.aacc)] for s in progress.images],
            "skipped": progress.skipped,
        }
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")
        self._last = time.monotonic()


def _progress(content: Mapping[str, Any], num_classes: int, num_samples: int) -> Progress:
    """Check every value of a file."""
    counts = torch.tensor(content["confusion"], dtype=torch.int64)
    if tuple(counts.shape) != (num_classes, num_classes + 1) or int(counts.min()) < 0:
        raise ValueError(f"its confusion must be ({num_classes}, {num_classes + 1}) counts")
    images = [
        ImageScore(int(index), str(name), _or_nan(miou), _or_nan(aacc))
        for index, name, miou, aacc in content["pictures"]
    ]
    skipped = [(int(index), str(reason)) for index, reason in content["skipped"]]
    numbers = sorted([score.index for score in images] + [index for index, _ in skipped])
    done = int(content["done"])
    if numbers != list(range(done)) or done > num_samples:
        raise ValueError(f"it must hold each of its first {done} images once, out of {num_samples}")
    return Progress(PixelConfusion(counts), done, images, skipped)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _or_nan(value: Any) -> float:
    return math.nan if value is None else float(value)
