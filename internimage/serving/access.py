"""Who may use the server: API keys."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

LEAST_LETTERS = 16

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
Header = Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))]


def read_keys(path: Path) -> tuple[str, ...]:
    """Return the keys of a file, one a line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no key, or one that can be guessed.
    """
    keys = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if not keys or min(map(len, keys)) < LEAST_LETTERS:
        raise ValueError(
            f"{path}: expected one key a line of at least {LEAST_LETTERS} letters; "
            "make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return keys


def key_check(keys: Sequence[str]) -> Callable[[str | None, HTTPAuthorizationCredentials | None], None]:
    """Return what lets requests with one of the keys pass, and all where there are no keys."""
    known = [key.encode() for key in keys]

    def check(header: Header, bearer: Bearer) -> None:
        given = (header or (bearer.credentials if bearer else "")).encode()
        matches = [hmac.compare_digest(given, key) for key in known]  # each takes the same time, whatever is wrong
        if known and not any(matches):
            raise HTTPException(
                401, "send an API key: Authorization: Bearer KEY, or X-API-Key: KEY", {"WWW-Authenticate": "Bearer"}
            )

    return check
