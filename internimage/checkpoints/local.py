"""Where the files of published checkpoints lie on this machine: nothing is downloaded or opened, torch stays out."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from internimage.checkpoints.catalog import BUNDLED, CatalogEntry
from internimage.files import cache_folder

HUB_URL = re.compile(r"https://huggingface\.co/(?P<repo>[^/]+/[^/]+)(?:/resolve/(?P<revision>[^/]+)/(?P<file>[^?]+))?$")
# Best first; an index names the parts of weights that were split.
WEIGHT_FILES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


def home(cache_dir: str | PathLike[str] | None = None) -> Path:
    """Return the folder for files put there by hand, downloads from other places than the Hub, and recorded hashes.

    It is `cache_dir`, else the environment variable INTERNIMAGE_HOME, else `~/.cache/internimage`.
    """
    return cache_folder() if cache_dir is None else Path(cache_dir)


def local_copy(entry: CatalogEntry, *, cache_dir: str | PathLike[str] | None = None) -> Path | None:
    """Return where the file or folder of a row lies on this machine, or None; nothing is downloaded or checked."""
    by_hand = BUNDLED / entry.filename if entry.source == "bundled" else home(cache_dir) / entry.filename
    if by_hand.exists():
        return by_hand
    hub = HUB_URL.match(entry.url or "")
    if hub is None:
        return None
    import huggingface_hub  # takes long, and only this question needs it

    for file in (hub["file"],) if hub["file"] else WEIGHT_FILES:
        cached = huggingface_hub.try_to_load_from_cache(
            hub["repo"], file, cache_dir=hub_cache(cache_dir), revision=hub["revision"]
        )
        if isinstance(cached, str):
            return Path(cached) if hub["file"] else Path(cached).parent
    return None


def hub_cache(cache_dir: str | PathLike[str] | None) -> Path | None:
    """Return the folder for the cache of huggingface_hub, None for its own choice."""
    return None if cache_dir is None else home(cache_dir) / "hub"
