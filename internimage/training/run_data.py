"""The data that a run was started with, so that it goes on with the same and no other."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from internimage.data import ImageDataset
from internimage.data.class_names import some_names
from internimage.data.fingerprint import DataFingerprint
from internimage.files import replacing
from internimage.hub.opening import read_checkpoint
from internimage.training.state import DATA_FILE, LAST_WEIGHTS, RunPosition

logger = logging.getLogger(__name__)

FORMAT = "internimage data 1"
MAX_BYTES = 2**30


class RunData:
    """Knows the data of a run again.

    Args:
        out: folder of the run, where `DATA_FILE` says what the data was made of.
        state: the state of a run that goes on, None for a new run.
    """

    def __init__(self, out: Path, state: RunPosition | None = None) -> None:
        self.out, self._is_new = out, state is None
        self._expected: Mapping[str, str] | None = None if state is None else state.get("data")
        self._found: dict[str, DataFingerprint] = {}

    def examine(self, parts: Mapping[str, ImageDataset[object]]) -> bool:
        """Look at the parts of the data set, see `training.setup.used_parts`; return whether the run is new.

        Raises:
            ValueError: the run that goes on was started with other data; the message says what has changed.
        """
        self._found = {name: DataFingerprint.of(dataset) for name, dataset in parts.items()}
        if self._is_new:
            return True
        if self._expected is None:
            self._refuse_other_classes(parts["training"].class_names)
            logger.warning(
                "%s was started by an older release: it cannot be checked whether images and ground truth are the same",
                self.out,
            )
            return False
        changes = [text for name in self._found for text in self._changes(name)]
        changes += [f"{name} part: it is gone" for name in self._expected if name not in self._found]
        if changes:
            raise ValueError(
                f"the data set is not the one that the run in {self.out} was started with:\n"
                + "\n".join(f"  {text}" for text in changes)
                + "\nGo on with the data as it was, or start a new run in another folder; --set "
                f"model.weights={self.out / LAST_WEIGHTS} starts it from what was learned"
            )
        return False

    def _refuse_other_classes(self, class_names: Sequence[str]) -> None:
        """Compare with the classes in the last weights, which older releases wrote, too.

        Raises:
            ValueError: they are others.
        """
        weights = self.out / LAST_WEIGHTS
        before = getattr(read_checkpoint(weights).config, "class_names", None) if weights.exists() else None
        if before is not None and tuple(before) != tuple(class_names):
            raise ValueError(
                f"the run in {self.out} learned the classes {some_names(before)}, but the data set has "
                f"{some_names(class_names)}; go on with the data as it was, or start a new run in another folder"
            )

    def _changes(self, name: str) -> list[str]:
        """Return what has changed in a part."""
        assert self._expected is not None
        found = self._found[name]
        if self._expected.get(name) == found.digest:
            return []
        before = self._stored().get(name)
        if before is None or before.digest != self._expected.get(name):
            return [f"{name} part: its classes, images or ground truth are others"]
        return [f"{name} part: {text}" for text in before.changes(found).texts()]

    def _stored(self) -> dict[str, DataFingerprint]:
        """Return what the data was made of; nothing where the file is gone or damaged, which then explains nothing."""
        try:
            with gzip.open(self.out / DATA_FILE, "rb") as file:
                text = file.read(MAX_BYTES + 1)
            content = json.loads(text) if len(text) <= MAX_BYTES else {}
            return {name: DataFingerprint.from_plain(part) for name, part in content["parts"].items()}
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}

    @property
    def digests(self) -> dict[str, str]:
        """What the state keeps of the data: a digest of each part."""
        return {name: found.digest for name, found in self._found.items()}

    def save(self) -> None:
        """Write what the data is made of, unless it stands there."""
        path = self.out / DATA_FILE
        if self._expected is not None and path.exists():
            return
        content = {"format": FORMAT, "parts": {name: found.to_plain() for name, found in self._found.items()}}
        with replacing(path) as temporary, gzip.open(temporary, "wt", compresslevel=3, encoding="utf-8") as file:
            json.dump(content, file)
