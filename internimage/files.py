"""Files that several programs use: one writer at a time, nothing left half-written, JSON that every program reads."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import re
import secrets
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
BUSY = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})
MAX_HOLDER_BYTES = 200
# Terminal commands beyond those that JSON escapes itself, changes of direction, halves of characters.
STEERING = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Where msvcrt locks: beyond the text, which stays readable for others.
_WINDOWS_OFFSET = 2**30

# Locks of this process; a process that is forked from it must not keep them alive.
_held: set[int] = set()


def cache_folder() -> Path:
    """Return the folder for what is kept on this machine: INTERNIMAGE_HOME, else `~/.cache/internimage`."""
    if "INTERNIMAGE_HOME" in os.environ:
        return Path(os.environ["INTERNIMAGE_HOME"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "internimage"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes out of what a lock file stands for, as long as the block runs.

    The lock belongs to the operating system: that of a process that was killed is gone. The file is removed at the end,
    and so is its folder if it was created here and nothing else came into it.

    Args:
        path: the lock file.

    Raises:
        BlockingIOError: somebody has the lock; the message says who.
    """
    is_new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _take(path)
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)
        if os.name == "posix":  # removed while it is held, so that nobody else's file is
            path.unlink(missing_ok=True)
        os.close(descriptor)
        with contextlib.suppress(OSError):
            if os.name != "posix":
                path.unlink(missing_ok=True)
            if is_new:
                path.parent.rmdir()


def _take(path: Path) -> int:
    """Open and lock a file; one that its holder removed meanwhile does not count."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, path)
            if os.name != "posix" or _is_file_at(descriptor, path):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    with contextlib.suppress(OSError):  # who has the lock is a courtesy, which a full disk does not allow
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return descriptor


def _lock(descriptor: int, path: Path) -> None:
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            os.lseek(descriptor, _WINDOWS_OFFSET, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # of Windows
            os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError as error:
        if error.errno in BUSY:
            holder = os.pread(descriptor, MAX_HOLDER_BYTES, 0) if hasattr(os, "pread") else b""
            who = re.sub(r"[^ -~]", "?", holder.decode("ascii", "replace")) or "another process"
            raise BlockingIOError(
                f"{path.parent} is in use by {who}; wait until it has ended, stop it, or choose another place"
            ) from error
        logger.warning(
            "%s: this file system has no locks (%s); make sure that no other process writes there", path.parent, error
        )


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _forget_locks() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def remove_leftovers(folder: Path, names: Iterable[str]) -> list[Path]:
    """Remove what writing `names` left behind when it was killed; call it while nobody else writes there.

    Returns:
        The temporary files that were removed.
    """
    patterns = [re.compile(rf"\.{re.escape(name[:80])}\.[0-9a-f]{{8}}\.tmp") for name in names]
    found = [path for path in folder.iterdir() if any(pattern.fullmatch(path.name) for pattern in patterns)]
    for path in found:
        path.unlink(missing_ok=True)
    if found:
        logger.info("removed %d temporary files of writes that were killed in %s", len(found), folder)
    return found


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file in the error of a write within the block that finds no space.

    Raises:
        OSError: the disk is full; one sentence with the file and the next step. Other errors pass as they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            f"cannot write {path}: no space is left there ({error.strerror}); make room, then go on"
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block succeeds, remove it when it fails.

    The content is on the disk before the rename, so that a crash leaves the old file or the new one, never a part.

    Raises:
        OSError: the file cannot be written; where the disk is full, the message names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.tmp")
    try:
        with writing(path):
            temporary.touch()
            mode = temporary.stat().st_mode  # what the user's umask gives; some writers make private files
            yield temporary
            _flush(temporary)
            temporary.chmod(mode)
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_text(value: Any, **layout: Any) -> str:
    """Return strict JSON: what is not finite becomes null, for other programs refuse NaN.

    Characters that steer a terminal, or that no encoding has, are written as JSON's escapes.

    Example:
        >>> json_text({"box_ap": float("nan"), "rows": [1.5]})
        '{"box_ap": null, "rows": [1.5]}'
    """
    try:
        text = json.dumps(value, allow_nan=False, **layout)
    except ValueError:
        text = json.dumps(finite_or_none(value), allow_nan=False, **layout)
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def finite_or_none(value: Any) -> Any:
    """Return plain values with None in place of every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite_or_none(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(inner) for inner in value]
    return value
