"""From a name, a file or a folder to an open checkpoint."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import NamedTuple

from internimage import tasks
from internimage.checkpoints import read
from internimage.checkpoints.catalog import CatalogEntry, find, not_there
from internimage.flow import Checkpoint


class Opened(NamedTuple):
    """An open checkpoint, and the name in the catalog that its file has, or None."""

    checkpoint: Checkpoint
    row: str | None


def read_checkpoint(path: str | PathLike[str], *, ema: bool | None = None) -> Checkpoint:
    """Open a weight file or a folder of any kind that the tasks know, see `checkpoints.read.read_checkpoint`."""
    return read.read_checkpoint(path, tasks.known(), ema=ema)


def open_checkpoint(
    name_or_path: str | PathLike[str],
    *,
    ema: bool | None = None,
    cache_dir: str | PathLike[str] | None = None,
    offline: bool = False,
    whole: bool = False,
) -> Opened:
    """Find, download and open a checkpoint.

    Args:
        name_or_path: a file, a folder or a name of the catalog, in this order.
        ema: see `read_checkpoint`.
        cache_dir: where downloads are kept.
        offline: use no network.
        whole: refuse rows whose model this release does not build, before anything is downloaded.

    Raises:
        UnknownName: no such name.
        FileNotFoundError: the file is not there, or cannot be downloaded.
        ValueError: the file is damaged, or its model is not built by this release.
    """
    path = Path(name_or_path)
    entry = find(path.name) if path.exists() else find(str(name_or_path))
    if entry is not None and not (entry.is_built if whole else entry.backbone_config):
        raise ValueError(_not_built(entry))
    row = None if entry is None else entry.name
    if path.exists():
        return Opened(read_checkpoint(path, ema=ema), row)
    if entry is None:
        raise not_there(str(name_or_path))
    from internimage.checkpoints.download import fetch  # the Hub's client takes long to import

    return Opened(read_checkpoint(fetch(entry, cache_dir=cache_dir, offline=offline), ema=ema), row)


def _not_built(entry: CatalogEntry) -> str:
    """Say what a row needs that this release lacks, and what can be had of it."""
    nouns = ", ".join(f"{task.noun}s" for task in tasks.every())
    text = (
        f"{entry.name} is for {entry.task.replace('_', ' ')} ({entry.backbone}, {entry.method}); this release builds "
        f"InternImage {nouns} and backbones."
    )
    if entry.backbone_config is not None and entry.url is not None:
        text += f" Its backbone can be had: create({entry.backbone!r}, weights={entry.name!r})"
    return text
