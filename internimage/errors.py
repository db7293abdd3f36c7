"""The four exceptions of this package; every other mistake of a caller is a ValueError or a TypeError."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class BackendUnavailable(RuntimeError):
    """A named operator backend cannot run here; the message says why and what to do."""


class MissingExtra(ImportError):
    """An optional dependency is not installed; the message holds the pip command."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'internimage[{extra}]'"
        )


class UnknownName(ValueError):
    """A name is not in a table; the message suggests the nearest ones.

    Args:
        kind: what was looked up, for example "model".
        name: the name given.
        known: every valid name.
        hint: where to see the full list.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        choices = list(known)
        self.suggestions = difflib.get_close_matches(name.lower(), choices, n=3, cutoff=0.0)
        text = f"unknown {kind} {name!r}; the nearest names are {', '.join(self.suggestions) or '(none)'}."
        super().__init__(f"{text} {hint}".rstrip())


class CheckpointMismatch(ValueError):
    """A checkpoint does not fit a model; lists the missing, unexpected and wrongly shaped keys.

    Args:
        source: the file or name that was loaded.
        missing: keys of the model that the checkpoint lacks.
        unexpected: keys of the checkpoint that the model lacks.
        wrong_shape: (key, expected shape, given shape) of every disagreement.
        hint: the next step for the reader.
    """

    def __init__(
        self,
        source: str,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        wrong_shape: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]] = (),
        hint: str = "",
    ) -> None:
        self.source = source
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.wrong_shape = tuple(wrong_shape)
        lines = [f"the checkpoint {source} does not fit the model"]
        lines += _listing("missing", self.missing)
        lines += _listing("unexpected", self.unexpected)
        lines += _listing("wrong shape", [f"{key}: expected {want}, given {got}" for key, want, got in wrong_shape])
        if hint:
            lines.append(hint)
        super().__init__("\n".join(lines))


def _listing(title: str, entries: Sequence[str], limit: int = 20) -> list[str]:
    """Format one group of keys, cut after `limit` entries (the exception's attributes hold them all)."""
    if not entries:
        return []
    lines = [f"{title} ({len(entries)}):"] + [f"  {entry}" for entry in entries[:limit]]
    if len(entries) > limit:
        lines.append(f"  ... and {len(entries) - limit} more")
    return lines
