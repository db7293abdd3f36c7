"""What a server has sent, looked at before it gets the name of a checkpoint."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

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
    size, start = path.stat().st_size, head.lstrip().lower()
    shown = printable(head[:SHOWN_BYTES].decode("utf-8", "replace"), SHOWN_BYTES)
    if not head:
        return "nothing (0 bytes)"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return f"a web page of {size} bytes, such as a login or an error page: {shown}"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of git-lfs instead of the file"
    if name.endswith(".json"):
        check, wrong = _check_json, "that are no JSON of a checkpoint"
    elif name.endswith(".safetensors"):
        check, wrong = _check_safetensors, "that are no whole safetensors file"
    elif head.startswith(ZIP_START):
        check, wrong = _check_zip, "of a checkpoint that is damaged or does not end as it should"
    elif head.startswith(PICKLE_START):
        check, wrong = _check_pickle, "of a checkpoint that cannot be read"
    else:
        return f"{size} bytes that are no checkpoint: {shown}"
    try:
        check(path)
    except (*BROKEN_FILE, SafetensorError, OSError) as error:
        return f"{size} bytes {wrong} ({printable(str(error), 80)})"
    return None


def _check_zip(path: Path) -> None:
    """Look for the end of an archive and compare the check sums in it."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"its part {printable(damaged, 60)} is damaged")


def _check_pickle(path: Path) -> None:
    """Read a checkpoint of the plain format, in which nothing but reading shows whether it is whole."""
    try:
        load_torch_file(path)
    except ValueError:
        raise ValueError("it is damaged") from None


def _check_safetensors(path: Path) -> None:
    with safe_open(path, framework="pt", device="cpu"):
        pass


def _check_json(path: Path) -> None:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"more than {MAX_JSON_BYTES} bytes")
    json.loads(path.read_text(encoding="utf-8"))
