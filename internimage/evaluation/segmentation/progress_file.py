"""What an evaluation has counted so far, in a file that a cut run goes on from."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from internimage.evaluation.segmentation.confusion import PixelConfusion
from internimage.evaluation.segmentation.report import PictureScore
from internimage.zoo.saving import replacing

FORMAT = "internimage segmentation progress 1"
MAX_BYTES = 2**30


@dataclass
class Progress:
    """The pictures that are done: those with numbers below `done`.

    Args:
        confusion: their pixels.
        done: how many pictures of the data set were looked at.
        pictures: the figures of those that could be read.
        skipped: (number, reason) of the others.
    """

    confusion: PixelConfusion
    done: int = 0
    pictures: list[PictureScore] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)


class ProgressFile:
    """Writes progress now and then, whole or not at all.

    Args:
        path: the file, None to keep nothing.
        identity: what the progress belongs to: model, data set, settings.
        save_seconds: time between two writes.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, str], *, save_seconds: float) -> None:
        self.path, self.identity, self.save_seconds = path, dict(identity), save_seconds
        self._last = time.monotonic()

    def load(self, num_classes: int, num_samples: int) -> Progress:
        """Return the progress in the file, or none where there is no file.

        Raises:
            ValueError: the file is damaged, or belongs to another model, data set or way of looking.
        """
        if self.path is None or not self.path.exists():
            return Progress(PixelConfusion.empty(num_classes))
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES} bytes")
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {str(content['format'])[:80]!r}, expected {FORMAT!r}")
            differing = [name for name, value in self.identity.items() if content["identity"].get(name) != value]
            progress = None if differing else _progress(content, num_classes, num_samples)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, RuntimeError) as error:
            raise ValueError(
                f"{self.path} is no progress of a segmentation evaluation ({error}); choose another file, or remove it"
            ) from error
        if progress is None:
            raise ValueError(
                f"{self.path} holds progress with another {' and another '.join(differing)}; choose another file, or "
                "remove it to start afresh"
            )
        return progress

    def save(self, progress: Progress, *, is_due: bool = False) -> None:
        """Write the progress if enough time has passed or `is_due` says so."""
        if self.path is None or not (is_due or time.monotonic() - self._last >= self.save_seconds):
            return
        content = {
            "format": FORMAT,
            "identity": self.identity,
            "done": progress.done,
            "confusion": progress.confusion.counts.tolist(),
            "pictures": [[s.index, s.name, _or_none(s.miou), _or_none(s.aacc)] for s in progress.pictures],
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
    pictures = [
        PictureScore(int(index), str(name), _or_nan(miou), _or_nan(aacc))
        for index, name, miou, aacc in content["pictures"]
    ]
    skipped = [(int(index), str(reason)) for index, reason in content["skipped"]]
    numbers = sorted([score.index for score in pictures] + [index for index, _ in skipped])
    done = int(content["done"])
    if numbers != list(range(done)) or done > num_samples:
        raise ValueError(f"it must hold each of its first {done} pictures once, out of {num_samples}")
    return Progress(PixelConfusion(counts), done, pictures, skipped)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _or_nan(value: Any) -> float:
    return math.nan if value is None else float(value)
