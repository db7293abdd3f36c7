"""The four exceptions of this package; every other mistake of a caller is a ValueError or a TypeError.

Names and texts out of foreign files go into messages through `printable`, so that none of them floods or steers the
terminal that shows it.
"""

from __future__ import annotations

import difflib
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence

# Joiners are part of words and of emoji; every other format character only changes how the rest looks.
JOINERS = "\u200c\u200d"
MAX_INTEGER_BITS = 256
# Keys that a mismatch lists, over all its groups, and how long each may be with and without its shapes.
LISTED_ENTRIES = 6
KEY_CHARACTERS, ENTRY_CHARACTERS = 64, 100


def printable(value: object, limit: int = 200, *, keep: str = "") -> str:
    r"""Return foreign text as it may be shown: control characters are spelled out, the middle of a long one is cut.

    Args:
        value: a text, a path, or any value that is shown as Python writes it.
        limit: most characters of the result.
        keep: control characters that stay, such as "\n".

    Example:
        >>> printable("a name with \x1b[31mcolor")
        'a name with \\x1b[31mcolor'
        >>> printable("x" * 50_000, 40)
        'xxxxxxxxxxxxxxxxxxxxxxxx ... xxxxxxxxxxx'
    """
    text = _written(value)
    is_cut = len(text) > 4 * limit  # escapes only make it longer
    if is_cut:
        text = text[: 2 * limit] + text[-2 * limit :]
    text = "".join(c if c in keep or not _is_control(c) else _escaped(c) for c in text)
    if is_cut or len(text) > limit:
        tail = (limit - 5) // 3
        text = f"{text[: limit - 5 - tail]} ... {text[len(text) - tail :]}"
    return text


def clean_name(text: str) -> str:
    r"""Return the name of a class without control and direction characters and without spaces around it.

    Example:
        >>> clean_name("cat\r\n"), clean_name("\u202etac")
        ('cat', 'tac')
    """
    return "".join(c for c in text if not _is_control(c)).strip()


def _written(value: object) -> str:
    """Return a text as it is and anything else as Python writes it, shortened where it holds much."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        return f"an integer of {value.bit_length()} bits"
    try:
        return str(value) if hasattr(value, "__fspath__") else reprlib.repr(value)
    except (ValueError, RecursionError):  # such as a list of integers of thousands of digits
        return f"a {type(value).__name__}"


def _is_control(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Zl", "Zp") or (category == "Cf" and character not in JOINERS)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


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
        self.suggestions = difflib.get_close_matches(name[:100].lower(), choices, n=3, cutoff=0.0)
        text = f"unknown {kind} {printable(name)!r}; the nearest names are {', '.join(self.suggestions) or '(none)'}."
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
        shapes = [f"{printable(key, KEY_CHARACTERS)}: expected {want}, given {got}" for key, want, got in wrong_shape]
        groups = {"missing": self.missing, "unexpected": self.unexpected, "wrong shape": tuple(shapes)}
        present = {title: entries for title, entries in groups.items() if entries}
        lines = [f"the checkpoint {printable(source, 300)} does not fit the model"]
        for title, entries in present.items():
            lines += _listing(title, entries, LISTED_ENTRIES // len(present))
        if hint:
            lines.append(hint)
        super().__init__("\n".join(lines))


def _listing(title: str, entries: Sequence[str], limit: int) -> list[str]:
    """Format one group of keys, cut after `limit` entries (the exception's attributes hold them all)."""
    lines = [f"{title} ({len(entries)}):"] + [f"  {printable(entry, ENTRY_CHARACTERS)}" for entry in entries[:limit]]
    if len(entries) > limit:
        lines.append(f"  ... and {len(entries) - limit} more")
    return lines
