"""What a server has sent, looked at before it gets the name of a checkpoint."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from internimage.checkpoints.formats.torch_files import BROKEN_FILE, load_torch_file
from internimage.errors import printable

HEAD_BYTES = 1024
SHOWN_BYTES = 60
MAX_JSON_BYTES = 64 * 2**20
ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"


def flaw(path: Path, name: str) -> str | None:
    """Say what is wrong with a file that was downloaded, None for a whole one.

    Args:
        path: what arrived.
        name: what was asked for; its ending tells the format.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    size = path.stat().st_size
    if not head:
        return "nothing (0 bytes)"
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return f"a web page of {size} bytes, such as a login or an error page: {_shown(head)}"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of git-lfs instead of the file"
    if name.endswith(".json"):
        return _flaw_of_json(path, size)
    if name.endswith(".safetensors"):
        return _flaw_of_safetensors(path, size)
    if head.startswith(ZIP_START):
        return _flaw_of_zip(path, size)
    if head.startswith(PICKLE_START):
        return _flaw_of_pickle(path, size)
    return f"{size} bytes that are no checkpoint: {_shown(head)}"


def _flaw_of_zip(path: Path, size: int) -> str | None:
    """Look for the end of an archive and compare the check sums in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (*BROKEN_FILE, OSError) as error:
        return f"{size} bytes of a checkpoint that does not end as it should ({printable(error, 80)})"
    return None if damaged is None else f"a checkpoint of {size} bytes whose part {printable(damaged, 60)} is damaged"


def _flaw_of_pickle(path: Path, size: int) -> str | None:
    """Read a checkpoint of the plain format, in which nothing but reading shows whether it is whole."""
    try:
        load_torch_file(path)
    except ValueError as error:
        return f"{size} bytes of a checkpoint that cannot be read ({printable(error.__cause__ or 'it is damaged', 80)})"
    return None


def _flaw_of_safetensors(path: Path, size: int) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu"):
            return None
    except (SafetensorError, ValueError, OverflowError, OSError) as error:
        return f"{size} bytes that are no whole safetensors file ({printable(error, 80)})"


def _flaw_of_json(path: Path, size: int) -> str | None:
    if size > MAX_JSON_BYTES:
        return f"{size} bytes of JSON, more than {MAX_JSON_BYTES}"
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return f"{size} bytes that are no JSON ({printable(error, 80)})"
    return None


def _shown(head: bytes) -> str:
    return printable(head[:SHOWN_BYTES].decode("utf-8", "replace"), SHOWN_BYTES)
