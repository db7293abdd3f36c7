"""Annotation files from outside: size limits, damaged content and names that lead elsewhere are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_TABLE_BYTES = 8 << 30  # annotations of a whole data set: those of Objects365 have 6 GB
MAX_TEXT_BYTES = 16 << 20  # annotations of one image, lists of classes


def read_bytes(file: Path, *, max_bytes: int) -> bytes:
    """Return the content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is larger than `max_bytes`.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file")
    with file.open("rb") as stream:
        size = file.stat().st_size
        content = stream.read(min(size, max_bytes) + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{file} has more than {max_bytes} bytes, the limit for files of this kind")
    return content


def read_text(file: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Return a UTF-8 text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is too large or no text.
    """
    try:
        return read_bytes(file, max_bytes=max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text ({error})") from error


def read_json(file: Path, *, max_bytes: int = MAX_TABLE_BYTES) -> Any:
    """Return the content of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is too large or no JSON.
    """
    try:
        return json.loads(read_bytes(file, max_bytes=max_bytes))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no valid JSON file: {error}") from error
