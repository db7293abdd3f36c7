"""Getting published files: from where they lie already, or from the network, whole and unchanged.

Order: a file that somebody put into our folder, the cache, the network. The hash of a file is written down when it is
first used and checked at every later use. Failures name the file, the places that were looked at and the way to put it
there by hand.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from os import PathLike
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants as hub_constants
from huggingface_hub import errors as hub_errors

from internimage.checkpoints.arrivals import flaw
from internimage.checkpoints.catalog import BUNDLED, CatalogEntry
from internimage.checkpoints.formats.huggingface import CONFIG, PREPROCESSOR, shard_names
from internimage.checkpoints.local import HUB_URL, WEIGHT_FILES, home, hub_cache
from internimage.checkpoints.transfer import check_reachable, receive
from internimage.errors import printable
from internimage.files import replacing

log = logging.getLogger(__name__)
DOWNLOAD_FAILURES: tuple[type[Exception], ...] = (
    *(OSError, HTTPException, hub_errors.EntryNotFoundError, getattr(hub_errors, "XetDownloadError", OSError)),
    # The first base is the root error of whichever HTTP client the installed huggingface_hub uses.
    hub_errors.HfHubHTTPError.__bases__[0],
)
DISK_ERRORS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT)
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Order:
    """One file or folder to get.

    Args:
        entry: the row of the catalog.
        home: folder for files put there by hand, downloads from other places than the Hub, and recorded hashes.
        hub_cache: cache of huggingface_hub, None for its own choice.
        offline: use no network.
    """

    entry: CatalogEntry
    home: Path
    hub_cache: Path | None
    offline: bool

    @property
    def by_hand(self) -> Path:
        """Where somebody may put the file."""
        return self.home / self.entry.filename

    def advice(self, reason: str, file: str | None = None) -> str:
        """Name the file, the places that were looked at, and the way to put it there."""
        hub = self.hub_cache or hub_constants.HF_HUB_CACHE
        kind = "the folder's files" if self.entry.source == "huggingface" else "it"
        return (
            f"{file or self.entry.filename} of {self.entry.name} is not on this machine, and {reason}.\n"
            f"Looked for: {self.by_hand} and, in the cache of huggingface_hub, {hub}.\n"
            f"To go on, download {kind} from {self.entry.url} and save {kind} as {self.by_hand}, or give load() the "
            "path of your copy."
        )


def fetch(entry: CatalogEntry, *, cache_dir: str | PathLike[str] | None = None, offline: bool = False) -> Path:
    """Return the local file, or folder, of a catalog row; download it if it is not there.

    Args:
        entry: a row of the catalog.
        cache_dir: where files are kept, None for `home()` and the cache of huggingface_hub.
        offline: use no network.

    Raises:
        ValueError: nothing was published, or a file is not the one that was first used.
        FileNotFoundError: the file is not here and may not or cannot be downloaded.
        ConnectionError: the download failed; a later call tries again.
        OSError: the disk is full or cannot be written; nothing half-written is left.
    """
    if entry.source == "bundled":
        return BUNDLED / entry.filename
    if entry.url is None:
        raise ValueError(f"the weights of {entry.name} were never published")
    order = Order(entry, home(cache_dir), hub_cache(cache_dir), offline)
    if order.by_hand.is_dir():
        for path in sorted(order.by_hand.glob("*.safetensors")):
            verify(path, order)
        return order.by_hand
    if order.by_hand.exists():
        return verify(order.by_hand, order)
    if "drive.google.com" in entry.url:
        raise FileNotFoundError(order.advice("Google Drive gives it to browsers only"))
    hub = HUB_URL.match(entry.url)
    if hub is None:
        return _fetch_http(order)
    if hub["file"] is None:
        return _fetch_folder(order, hub["repo"])
    return _fetch_hub(order, hub["repo"], hub["file"], hub["revision"])


def verify(path: Path, order: Order) -> Path:
    """Compare a file with the hash recorded at its first use, or record it now; return its path.

    Raises:
        ValueError: the file has changed, or arrived damaged.
    """
    record = _record(path, order)
    digest = sha256(path)
    if record.exists():
        known = record.read_text(encoding="ascii").strip()
        if known != digest:
            raise ValueError(
                f"{path} is not the file that was first used (sha256 {digest}, recorded {known}): it is damaged or was "
                f"replaced. Delete it to download it again; if the change is wanted, delete {record}"
            )
        return path
    # The Hub names large files by their hash, which tells a damaged first download.
    published = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", published) and published != digest:
        what = flaw(path, path.name) or "another file"
        raise ValueError(
            f"{path} arrived damaged: the server sent {what} (sha256 {digest}, published {published}); try again"
        )
    try:
        with replacing(record) as temporary:
            temporary.write_text(digest + "\n", encoding="ascii")
    except OSError as error:
        log.warning("cannot record the hash of %s: %s", path, error)
    return path


def _record(path: Path, order: Order) -> Path:
    """Return where the hash of a file is written down."""
    return order.home / "sha256" / f"{re.sub(r'[^0-9A-Za-z._-]+', '-', order.entry.name)}.{path.name}.txt"


def _fetch_hub(order: Order, repo: str, file: str, revision: str | None) -> Path:
    """Return a file of a Hub repository, from its cache or the network."""

    def get(local_files_only: bool) -> Path:
        path = huggingface_hub.hf_hub_download(
            repo,
            file,
            revision=revision,
            cache_dir=order.hub_cache,
            endpoint=os.environ.get("HF_ENDPOINT"),
            local_files_only=local_files_only,
        )
        return Path(path)

    try:
        path = get(True)
    except hub_errors.LocalEntryNotFoundError:
        if order.offline:
            raise FileNotFoundError(order.advice("offline=True forbids the network", file)) from None
        log.info("downloading %s from %s", file, repo)
        return _explained(lambda: _checked(get, order, repo, file), order, file)
    return verify(path, order)


def _checked(get: Callable[[bool], Path], order: Order, repo: str, file: str) -> Path:
    """Download a file of the Hub and look at what came; what is not the file does not stay in the cache."""
    check_reachable(os.environ.get("HF_ENDPOINT") or hub_constants.ENDPOINT)
    try:
        path = get(False)
    except OSError as error:
        if "Consistency check failed" in str(error):
            _forget_parts(order, repo)
        raise
    record = _record(path, order)
    is_first = not record.exists()
    try:
        verify(path, order)
        check_arrival(path, file)
    except (ValueError, ConnectionError):
        if is_first:
            record.unlink(missing_ok=True)
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise
    return path


def _forget_parts(order: Order, repo: str) -> None:
    """Remove what has arrived of the files of a repository, so that nothing is put behind bytes of another file."""
    cache = Path(order.hub_cache or hub_constants.HF_HUB_CACHE)
    for part in (cache / f"models--{repo.replace('/', '--')}" / "blobs").glob("*.incomplete"):
        part.unlink(missing_ok=True)


def check_arrival(path: Path, name: str) -> None:
    """Raise if what arrived is not whole or not what was asked for.

    Raises:
        ConnectionError: the server sent something else; the message says what.
    """
    what = flaw(path, name)
    if what is not None:
        raise ConnectionError(f"the server sent {what}")


def _fetch_folder(order: Order, repo: str) -> Path:
    """Return the folder of a Transformers repository with its configuration and weights."""
    folder = _fetch_hub(order, repo, CONFIG, None).parent
    revision = folder.name  # the commit, so that all files are of one version
    _fetch_optional(order, repo, PREPROCESSOR, revision)
    for name in WEIGHT_FILES:
        path = _fetch_optional(order, repo, name, revision)
        if path is not None:
            for shard in shard_names(path):
                _fetch_hub(order, repo, shard, revision)
            return folder
    raise FileNotFoundError(order.advice(f"the folder holds none of {', '.join(WEIGHT_FILES)}"))


def _fetch_optional(order: Order, repo: str, file: str, revision: str) -> Path | None:
    """Return a file that a repository may lack, or None."""
    try:
        return _fetch_hub(order, repo, file, revision)
    except FileNotFoundError as error:
        if order.offline or isinstance(error.__cause__, hub_errors.EntryNotFoundError):
            return None
        raise


def _fetch_http(order: Order) -> Path:
    """Download a file from a plain web server."""
    url = str(order.entry.url)
    if order.offline:
        raise FileNotFoundError(order.advice("offline=True forbids the network"))
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{order.entry.name}: only http and https are downloaded, given {url}")

    def get() -> Path:
        with replacing(order.by_hand) as temporary, temporary.open("wb") as file:
            receive(url, file)
            file.flush()
            check_arrival(temporary, order.entry.filename)
        return order.by_hand

    log.info("downloading %s", url)
    return verify(_explained(get, order, order.entry.filename), order)


def _explained(get: Callable[[], Path], order: Order, file: str) -> Path:
    """Run a download; turn its failure into an error that names the file and the way out."""
    try:
        return get()
    except DOWNLOAD_FAILURES as error:
        text = str(error).strip() or type(error).__name__
        reason = f"the download failed ({printable(text.splitlines()[0], 400)})"
        if isinstance(error, hub_errors.EntryNotFoundError) and not isinstance(error, FileNotFoundError):
            raise FileNotFoundError(order.advice("the server has no such file", file)) from error
        disk = next((e for e in (error, error.__cause__) if isinstance(e, OSError) and e.errno in DISK_ERRORS), None)
        if disk is not None:
            raise OSError(disk.errno, order.advice(f"{reason}; free space or give cache_dir", file)) from error
        raise ConnectionError(order.advice(reason, file)) from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
