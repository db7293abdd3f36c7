"""What the front and its workers say to one another: a JSON header, and the bytes that belong to it.

    8 bytes: length of the header | 8 bytes: length of all parts | header | part | part | ...

The header's "sizes" are those of the parts. Nothing is unpickled: a worker that a hostile image has taken over can say
something wrong, and no more.
"""

from __future__ import annotations

import json
import struct
from asyncio import IncompleteReadError, StreamReader
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

LENGTHS = struct.Struct(">QQ")
Header = dict[str, Any]
Frame = tuple[Header, list[bytes]]


def pack(header: Mapping[str, Any], parts: Sequence[bytes] = ()) -> list[bytes]:
    """Return the pieces of a frame, to be written one after the other.

    Example:
        >>> import io
        >>> read(io.BytesIO(b"".join(pack({"model": "pets"}, [b"one", b"three"]))))
        ({'model': 'pets', 'sizes': [3, 5]}, [b'one', b'three'])
    """
    text = json.dumps({**header, "sizes": [len(part) for part in parts]}).encode()
    return [LENGTHS.pack(len(text), sum(map(len, parts))) + text, *parts]


def read(stream: BinaryIO) -> Frame | None:
    """Return the next frame, None at the end of the stream."""
    start = stream.read(LENGTHS.size)
    if len(start) < LENGTHS.size:
        return None
    header_bytes, content_bytes = LENGTHS.unpack(start)
    text, content = stream.read(header_bytes), stream.read(content_bytes)
    if len(text) < header_bytes or len(content) < content_bytes:
        return None
    return _cut(text, content)


async def read_async(stream: StreamReader) -> Frame | None:
    """Return the next frame, None at the end of the stream."""
    try:
        header_bytes, content_bytes = LENGTHS.unpack(await stream.readexactly(LENGTHS.size))
        text = await stream.readexactly(header_bytes)
        return _cut(text, await stream.readexactly(content_bytes))
    except (IncompleteReadError, ConnectionError):
        return None


def _cut(text: bytes, content: bytes) -> Frame:
    header = json.loads(text)
    parts: list[bytes] = []
    start = 0
    for size in header["sizes"]:
        parts.append(content[start : start + size])
        start += size
    return header, parts
