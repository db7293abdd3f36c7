"""Getting one file over HTTP, in several pieces where the connection is cut, all of one version of the file."""

from __future__ import annotations

import logging
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse
from typing import BinaryIO

log = logging.getLogger(__name__)
ATTEMPTS = 4
CHUNK_BYTES = 2**20
TIMEOUT_S = 30
CONNECT_TIMEOUT_S = 10
RANGE_NOT_SATISFIABLE = 416
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)$")


def check_reachable(url: str) -> None:
    """Raise at once where a server cannot be reached at all, so that nobody waits for tries that cannot succeed.

    Raises:
        ConnectionError: the name is not known, nobody answers, or the connection is refused.
    """
    target = urllib.parse.urlsplit(url)
    is_direct = urllib.request.proxy_bypass(target.hostname or "")
    proxy = None if is_direct else urllib.request.getproxies().get(target.scheme)
    if proxy:
        target = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme=target.scheme)
    port = target.port or (443 if target.scheme == "https" else 80)
    try:
        socket.create_connection((target.hostname or "", port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        what = "the proxy " if proxy else ""
        raise ConnectionError(f"cannot reach {what}{target.hostname}:{port}: {error.strerror or error}") from error


def receive(url: str, file: BinaryIO) -> None:
    """Write the body of a web page to a file; a cut connection goes on where it stopped.

    Pieces are joined only if the server says that they are the next bytes of the same version; else all begins anew.

    Raises:
        ConnectionError: the server cannot be reached, the connection was cut too often, or the server sent another
            length than it said.
    """
    check_reachable(url)
    version, total = None, None
    for attempt in range(ATTEMPTS):
        if version is None:
            _empty(file)
        try:
            with urllib.request.urlopen(_request(url, file.tell(), version), timeout=TIMEOUT_S) as response:
                if response.status != 206:
                    _empty(file)
                    total, version = _length(response), _version(response)
                elif not _goes_on(response, file.tell(), total, version):
                    log.warning("%s: the file has changed on the server; starting again", url)
                    version, total = None, None
                    continue
                while chunk := response.read(CHUNK_BYTES):
                    file.write(chunk)
            if total is None or file.tell() == total:
                return
        except urllib.error.HTTPError as error:
            if error.code != RANGE_NOT_SATISFIABLE or not file.tell():
                raise
            version, total = None, None
            continue
        except (HTTPException, urllib.error.URLError, ConnectionError, TimeoutError) as error:
            if attempt == ATTEMPTS - 1:
                raise ConnectionError(f"{error}, after {ATTEMPTS} attempts") from error
        log.warning("%s: the connection was cut at %d of %s bytes", url, file.tell(), total)
    if total is None:
        raise ConnectionError("the file kept changing on the server")
    raise ConnectionError(f"the server sent {file.tell()} of {total} bytes")


def _request(url: str, start: int, version: str | None) -> urllib.request.Request:
    headers = {"User-Agent": "internimage"}
    if start and version:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    return urllib.request.Request(url, headers=headers)


def _goes_on(response: HTTPResponse, start: int, total: int | None, version: str | None) -> bool:
    """Whether a response holds the bytes from `start` on to the end of the same version of the file."""
    span = CONTENT_RANGE.match(response.headers.get("Content-Range") or "")
    if span is None or int(span[1]) != start or response.headers.get("ETag") not in (None, version):
        return False
    return total is None or (int(span[2]) == total - 1 and span[3] in ("*", str(total)))


def _version(response: HTTPResponse) -> str | None:
    """Return what names the version of a file byte by byte; a weak tag does not."""
    tag = response.headers.get("ETag")
    return None if tag is None or tag.startswith("W/") else tag


def _length(response: HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length")
    return int(text) if text and text.isdigit() else None


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()
