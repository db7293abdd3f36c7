"""An exported file as a model that predicts."""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path

from internimage.checkpoints.download import sha256
from internimage.exporting.document import Document, from_text
from internimage.exporting.file_model import file_model
from internimage.exporting.formats import format_of
from internimage.flow import Network


def read_document(file: str | PathLike[str]) -> Document:
    """Return what an exported file says of itself.

    Raises:
        FileNotFoundError: there is no such file.
        MissingExtra: its runtime is not installed.
        ValueError: the file is damaged, or was not written by this package.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"no exported file at {path}")
    return from_text(format_of(path).description(path), str(path))


def open_exported(file: str | PathLike[str]) -> Network:
    """Return an exported file as a model of its task, or as a bare backbone.

    Raises:
        FileNotFoundError: there is no such file.
        MissingExtra: its runtime is not installed.
        ValueError: the file is damaged, was not written by this package, or cannot run on this machine.
    """
    path, document = Path(file), read_document(file)
    found = format_of(path)
    why_not = found.why_not_run()
    if why_not is not None:
        raise ValueError(f"{path} cannot run here: {why_not}")
    return file_model(document, found.open(path), str(path), _fingerprint(path))


def _fingerprint(path: Path) -> str:
    """Return a SHA-256 of a file and of the weights beside it, where its format puts them there."""
    parts = (path, path.with_suffix(".bin"), path.with_name(f"{path.name}.data"))
    return hashlib.sha256("".join(sha256(part) for part in parts if part.is_file()).encode()).hexdigest()
