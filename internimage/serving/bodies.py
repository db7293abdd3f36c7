"""From the body of a request to the bytes of its images, within limits of size, number and time.

A body is kept in memory, never in a file; a path or an address in it is no image and is never opened.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import contextmanager, suppress
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from internimage.serving.settings import Limits

CLOSE = {"Connection": "close"}  # what is left of the body is not read
# A client reads our refusal when it has sent everything; one that is cut off before as a rule sees an error instead.
DISCARD_SECONDS, DISCARD_BYTES = 2.0, 64 << 20
EXPECTED = 'expected multipart/form-data with files, or application/json {"images": ["<base64>", ...]}'


class HeldBytes:
    """Counts the bytes of all bodies in progress."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    @contextmanager
    def of_one_request(self) -> Any:
        """Give a function that counts bytes of a request; at the end of the block they are given back.

        Yields:
            A function that takes a number of bytes and raises HTTPException 429 where they are too many.
        """
        own = 0

        def hold(count: int) -> None:
            nonlocal own
            if self.held + count > self.limit:
                raise HTTPException(429, "the requests in progress fill the memory for them", {"Retry-After": "1"})
            own += count
            self.held += count

        try:
            yield hold
        finally:
            self.held -= own


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 62  # the body has a limit of its own; nothing is written to a disk


async def read_images(request: Request, limits: Limits, hold: Callable[[int], None]) -> list[bytes]:
    """Return the images of a request in order.

    Args:
        request: a request whose body nobody has read.
        limits: most bytes, most images, most seconds.
        hold: is told the number of bytes of each part that arrives.

    Raises:
        HTTPException: 400 for a body that holds no images or too many, 408 for one that comes too slowly, 413 for one
            that is too large, 415 for one of another type, 429 from `hold`.
        ClientDisconnect: the client has gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/json"):
        raise HTTPException(415, f"unknown content type {kind[:100]!r}; {EXPECTED}", CLOSE)
    stream = _limited(request, limits.body_bytes, hold)
    read = _from_form(request, stream, limits) if kind == "multipart/form-data" else _from_json(stream)
    try:
        images = await asyncio.wait_for(read, limits.body_seconds)
    except asyncio.TimeoutError as error:
        reason = f"the request did not arrive within {limits.body_seconds:g} s"
        raise HTTPException(408, reason, CLOSE) from error
    if not 1 <= len(images) <= limits.images:
        raise HTTPException(400, f"expected 1 to {limits.images} images in a request, given {len(images)}; {EXPECTED}")
    empty = next((i for i, image in enumerate(images, 1) if not image), None)
    if empty is not None:
        raise HTTPException(400, f"image {empty} of {len(images)} is empty (0 bytes)")
    return images


async def _limited(request: Request, limit: int, hold: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    """Give the body part by part; refuse one that is too large, from its header where that says so."""
    declared = request.headers.get("content-length", "")
    stream = request.stream()
    received = int(declared) if declared.isdecimal() and len(declared) < 20 else 0
    if received <= limit:
        received = 0
        async for part in stream:
            received += len(part)
            if received > limit:
                break
            hold(len(part))
            yield part
        else:
            return
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_discard(stream), DISCARD_SECONDS)
    raise HTTPException(413, f"the request has more than {limit} bytes, the limit here", CLOSE)


async def _discard(stream: AsyncGenerator[bytes, None]) -> None:
    discarded = 0
    async for part in stream:
        discarded += len(part)
        if discarded > DISCARD_BYTES:
            return


async def _from_form(request: Request, stream: AsyncGenerator[bytes, None], limits: Limits) -> list[bytes]:
    parser = _InMemory(request.headers, stream, max_files=limits.images, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"{error.message} {EXPECTED}, at most {limits.images} of them", CLOSE) from error
    try:
        return [await file.read() for _, file in form.multi_items() if isinstance(file, UploadFile)]
    finally:
        await form.close()


async def _from_json(stream: AsyncGenerator[bytes, None]) -> list[bytes]:
    body = bytearray()
    async for part in stream:
        body += part
    return await asyncio.to_thread(_decoded, bytes(body))  # a large one would hold up the other requests


def _decoded(body: bytes) -> list[bytes]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is no JSON ({error}); {EXPECTED}") from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images) or len(content) > 1:
        raise HTTPException(400, f"the JSON has another form; {EXPECTED}")
    found: list[bytes] = []
    for i, image in enumerate(images, 1):
        try:
            found.append(base64.b64decode(image, validate=True))
        except (binascii.Error, ValueError) as error:
            reason = f"image {i} of {len(images)} is no base64 ({error}); addresses and paths are not read"
            raise HTTPException(400, reason) from error
    return found
