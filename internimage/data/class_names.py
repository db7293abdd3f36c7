"""One rule for class names, wherever a model with names meets data or weights with names.

Names decide, numbers and order do not. Names that differ in case, spaces, "_" and "-" only are the same name where no
other name comes as close. A side without names (None, or mere numbers such as "0" to "9" or "class 1" to "class 9") is
taken by its numbers, which then must be as many as the names of the other side.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from internimage.data.labels import IMAGENET_1K, IMAGENET_22K, ITS_ROW, MISSING_SYNSET, label_set, rows_22k_to_1k

SHOWN, MAX_LETTERS = 5, 60
IMAGENET_22K_CLASSES, IMAGENET_1K_CLASSES = 21841, 1000
NONE = -1

_SYNSET = re.compile(r"n\d{8}")
_SEPARATORS = re.compile(r"[\s_-]+")
_NUMBERED = re.compile(r"(?:(?:class|cls|category|label|id)[\s_-]*)?(\d{1,9})", re.IGNORECASE)

# Names, or only the number of classes of a side that has no names.
Classes = Sequence[str] | int


@dataclass(frozen=True)
class ClassMatch:
    """Which of the offered classes each wanted class is.

    Args:
        rows: for each wanted class the index of the offered one, -1 where none has its name.
        missing: names of the wanted classes that are not offered.
        unused: names of the offered classes that nobody wanted.
        by_name: whether names decided; else one side is only numbered.
    """

    rows: tuple[int, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    by_name: bool

    @property
    def is_identity(self) -> bool:
        """Whether both sides have the same classes under the same numbers."""
        return not self.unused and self.rows == tuple(range(len(self.rows)))


def match_classes(wanted: Classes, offered: Classes) -> ClassMatch | None:
    """Find each wanted class among the offered ones.

    The classes of ImageNet are known by name and by synset ("n01440764"), and those of ImageNet-1k are found among the
    21,841 of ImageNet-22k.

    Args:
        wanted: names of the classes that are looked for, or their number.
        offered: names of the classes among which they are looked for, or their number.

    Returns:
        The match; None where a side has no names and the numbers of classes differ.

    Raises:
        ValueError: a name that is looked for stands for two of the offered classes.

    Example:
        >>> match_classes(["hot dog", "Cat", "owl"], ["cat", "hot_dog"])
        ClassMatch(rows=(1, 0, -1), missing=('owl',), unused=(), by_name=True)
        >>> match_classes(["1", "0"], ["zero", "one"]).rows
        (1, 0)
    """
    if isinstance(wanted, int) or isinstance(offered, int):
        return _by_number(wanted, offered)
    if tuple(wanted) == tuple(offered):
        return ClassMatch(tuple(range(len(wanted))), (), (), by_name=True)
    keys = _keys(wanted, offered)
    rows = place_names(*keys)
    if NONE in rows and (_numbers(wanted) is not None or _numbers(offered) is not None):
        by_number = _by_number(wanted, offered)
        if all(row == NONE for row in rows):
            return by_number
        # Do numbers put every name that was found where it was found? "1" to "4" are not "0" to "3".
        if by_number and all(row in (NONE, other) for row, other in zip(rows, by_number.rows, strict=True)):
            return by_number
    if MISSING_SYNSET in keys[0] and len(offered) == IMAGENET_22K_CLASSES:
        rows = tuple(ITS_ROW if key == MISSING_SYNSET else row for key, row in zip(keys[0], rows, strict=True))
    return _match(rows, wanted, offered, by_name=True)


def place_names(wanted: Sequence[str], offered: Sequence[str]) -> tuple[int, ...]:
    """Return the index of each name among the offered names, -1 where it is not there; numbers are names like others.

    Raises:
        ValueError: a name stands for two of the offered ones, or is wanted twice and offered; two lists that agree
            from the first name to the last may hold a name twice.

    Example:
        >>> place_names(["Potted-Plant", "cat"], ["pottedplant", "Cat", "CAT"])
        (0, -1)
    """
    in_order = tuple(range(len(wanted)))
    if [_plain(name) for name in wanted] == [_plain(name) for name in offered]:
        return in_order
    rows = [NONE] * len(wanted)
    for key in (_plain, _spaced, _joined):
        theirs = [key(name) for name in offered]
        counts, ours = Counter(theirs), Counter(key(name) for name in wanted)
        index_of = {name: i for i, name in enumerate(theirs)}
        taken = set(rows)
        for i, name in enumerate(map(key, wanted)):
            if rows[i] != NONE or name not in index_of:
                continue
            is_clear = counts[name] == ours[name] == 1
            if is_clear and index_of[name] not in taken:
                rows[i] = index_of[name]
            elif not is_clear and key is _plain:
                raise ValueError(
                    f"there are two classes of the name {wanted[i]!r:.{MAX_LETTERS}}, and the classes stand in another "
                    "order, so nothing tells which is which; give them different names"
                )
    agree = all(row in (NONE, i) for i, row in enumerate(rows))
    if NONE in rows and agree and [_spaced(name) for name in wanted] == [_spaced(name) for name in offered]:
        return in_order
    return tuple(rows)


def some_names(names: Sequence[str], *, shown: int = SHOWN) -> str:
    """Return the first names for a message, and how many more there are.

    Example:
        >>> some_names(["cat", "dog", "owl"], shown=2)
        "'cat', 'dog' and 1 more"
    """
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    short = (name if len(name) <= MAX_LETTERS else name[:MAX_LETTERS] + "..." for name in names[:shown])
    return ", ".join(map(repr, short)) + rest


def _by_number(wanted: Classes, offered: Classes) -> ClassMatch | None:
    """Match by numbers: those that names spell, else order."""
    ours, theirs = _numbering(wanted), _numbering(offered)
    if len(ours) == len(theirs):
        index_of = {number: i for i, number in enumerate(theirs)}
        rows = tuple(index_of[number] for number in ours)
    elif (len(theirs), len(ours)) == (IMAGENET_22K_CLASSES, IMAGENET_1K_CLASSES):
        known = rows_22k_to_1k()
        rows = tuple(known[number] for number in ours)
    else:
        return None
    return _match(rows, wanted, offered, by_name=False)


def _match(rows: tuple[int, ...], wanted: Classes, offered: Classes, *, by_name: bool) -> ClassMatch:
    used = set(rows)
    ours, theirs = _names(wanted), _names(offered)
    missing = tuple(name for name, row in zip(ours, rows, strict=True) if row == NONE)
    return ClassMatch(rows, missing, tuple(name for i, name in enumerate(theirs) if i not in used), by_name)


def _names(classes: Classes) -> Sequence[str]:
    return tuple(map(str, range(classes))) if isinstance(classes, int) else classes


def _numbering(classes: Classes) -> Sequence[int]:
    """Return the number, from 0, of each class: what its name spells, else its index."""
    if isinstance(classes, int):
        return range(classes)
    found = _numbers(classes)
    return range(len(classes)) if found is None else found


def _numbers(names: Sequence[str]) -> list[int] | None:
    """Return the numbers, from 0, that all names spell if these are 0 .. n - 1 or 1 .. n in any order, else None."""
    matches = [_NUMBERED.fullmatch(name.strip()) for name in names]
    numbers = [int(match[1]) for match in matches if match is not None]
    for start in (0, 1):
        if len(numbers) == len(names) and set(numbers) == set(range(start, start + len(names))):
            return [number - start for number in numbers]
    return None


def _keys(wanted: Sequence[str], offered: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return what the two sides are compared by: synsets where both sides have them, else their names."""
    ours, theirs = _synsets(wanted), _synsets(offered)
    return (wanted, offered) if ours is None or theirs is None else (ours, theirs)


def _synsets(names: Sequence[str]) -> Sequence[str] | None:
    """Return the synsets of the classes of ImageNet, named in words or by the synsets themselves."""
    if names and all(_SYNSET.fullmatch(name) for name in names):
        return names
    for kind, number in ((IMAGENET_1K, IMAGENET_1K_CLASSES), (IMAGENET_22K, IMAGENET_22K_CLASSES)):
        if len(names) == number and tuple(names) == label_set(kind).class_names:
            return label_set(kind).synsets
    return None


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()


def _spaced(name: str) -> str:
    return _SEPARATORS.sub(" ", _plain(name).casefold()).strip()


def _joined(name: str) -> str:
    """Leave separators out, but for those between digits: "1-1" is not "11"."""
    return re.sub(r"(?<!\d) | (?!\d)", "", _spaced(name))
