"""Damage to texts and JSON documents that keeps their form: other types, extremes, missing and doubled parts."""

from __future__ import annotations

import copy
import random
import re
from typing import Any

EXTREME_TEXTS = (
    *("", " ", "-1", "0", "1", "1.0", "-0.0", "0.5", "1e308", "1e999", "-1e400", "nan", "inf", "9" * 5001, "0x10"),
    *("1,5", "1/2", "true", "None", "Ω" * 300, "a" * 70_000, "../../x", "..\\x", "C:\\x\\1.png", "/etc/hosts"),
    *("http://h/1.png?x", "%2e%2e%2f", "1.png", "\u202e", "&lt;", "<a>", "{}", "[", '"', "'", ",,,,", "\t"),
)
EXTREME_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 0.5, 1.0, 12.0, -1e308, 1e308, 10**400, 1 << 63, -(1 << 64)),
    *(float("nan"), float("inf"), [], [[]], [None] * 6, [[1, 2], [3, 4]], [1, 2, 3, 4, 5, 6], {}, {"size": []}),
    *({"size": [60, 80], "counts": "z" * 90}, {"counts": [4800]}, {"a": {"b": []}}),
)
_TOKEN = re.compile(r"[^\s,<>\"':\[\]{}/]+")


def damaged_text(text: str, rng: random.Random) -> str:
    """Replace, double or take away words and lines."""
    for _ in range(rng.choice((1, 1, 3))):
        way = rng.random()
        lines = text.splitlines(keepends=True) or [""]
        place = rng.randrange(len(lines))
        if way < 0.15:
            lines.insert(place, lines[rng.randrange(len(lines))])
            text = "".join(lines)
        elif way < 0.25:
            del lines[place]
            text = "".join(lines)
        else:
            words = list(_TOKEN.finditer(text))
            if words:
                word = rng.choice(words)
                text = text[: word.start()] + rng.choice(EXTREME_TEXTS) + text[word.end() :]
    return text


def damaged_document(value: Any, rng: random.Random) -> Any:
    """Replace, double or take away one entry of a JSON document, at any depth."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice((*EXTREME_VALUES, *EXTREME_TEXTS))
    result = copy.copy(value)
    keys = list(result) if isinstance(result, dict) else list(range(len(result)))
    key, way = rng.choice(keys), rng.random()
    if way < 0.1:
        del result[key]
    elif way < 0.2 and isinstance(result, list):
        result.insert(key, copy.deepcopy(rng.choice(result)))
    else:
        result[key] = damaged_document(result[key], rng)
    return result
