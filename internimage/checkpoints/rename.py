"""Foreign parameter names and ours: renaming by the rules of a model, in both directions.

The rules lie beside the networks that they are for, see `backbones.original.names`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from internimage.backbones.original.names import Rules

Value = TypeVar("Value")

# Transformers once rewrote every parameter whose name holds "gamma", so its folders call the branch scales otherwise.
HUGGINGFACE: Rules = (("levels.#.blocks.#.gamma#", "levels.#.blocks.#.layer_scale#"),)
HUGGINGFACE_PREFIX = "model."


def to_ours(state: Mapping[str, Value], rules: Rules) -> dict[str, Value]:
    """Rename the entries of an original model to ours.

    Args:
        state: original names and anything: tensors, shapes.
        rules: pairs (ours, original).

    Returns:
        Our names and the same values in the same order; names that no rule knows stay as they are.
    """
    return _rename(state, _compiled(rules, to_ours=True))


def to_original(state: Mapping[str, Value], rules: Rules) -> dict[str, Value]:
    """Rename our entries to the original's; the inverse of `to_ours`.

    Raises:
        ValueError: a name is none of ours.
    """
    table = _compiled(rules, to_ours=False)
    strange = [key for key in state if not any(pattern.fullmatch(key) for pattern, _ in table)]
    if strange:
        raise ValueError(f"no parameters of this model: {', '.join(strange[:5])}")
    return _rename(state, table)


def from_huggingface(state: Mapping[str, Value]) -> dict[str, Value]:
    """Rename the entries of a Transformers folder, without their prefix, to the original's; others stay as they are."""
    return _rename(state, tuple(_compile(theirs, original) for original, theirs in HUGGINGFACE))


def to_huggingface(state: Mapping[str, Value]) -> dict[str, Value]:
    """Rename the original's entries to those of a Transformers folder; their prefix included."""
    renamed = _rename(state, tuple(_compile(original, theirs) for original, theirs in HUGGINGFACE))
    return {HUGGINGFACE_PREFIX + key: value for key, value in renamed.items()}


def is_backbone_key(key: str) -> bool:
    """Whether an original name, without prefix, belongs to the backbone."""
    return key.startswith(("patch_embed.", "levels."))


def strip_prefix(state: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    """Cut a prefix from the names if every name has it."""
    if not state or not all(key.startswith(prefix) for key in state):
        return dict(state)
    return {key[len(prefix) :]: value for key, value in state.items()}


def _rename(state: Mapping[str, Value], rules: Iterable[tuple[re.Pattern[str], str]]) -> dict[str, Value]:
    """Rename each key by the first rule that knows it."""
    table = tuple(rules)
    renamed: dict[str, Value] = {}
    for key, value in state.items():
        match, template = next(((m, t) for pattern, t in table if (m := pattern.fullmatch(key))), (None, ""))
        name = key if match is None else match.expand(template)
        if name in renamed:
            raise ValueError(f"two entries of the checkpoint become {name!r}")
        renamed[name] = value
    return renamed


@functools.cache
def _compiled(rules: Rules, *, to_ours: bool) -> tuple[tuple[re.Pattern[str], str], ...]:
    """The rules of a model in one direction."""
    return tuple(_compile(theirs, ours) if to_ours else _compile(ours, theirs) for ours, theirs in rules)


def _compile(source: str, target: str) -> tuple[re.Pattern[str], str]:
    """Turn a rule into a pattern and a replacement."""
    pattern = re.escape(source).replace(r"\#", r"(\d+)").replace("#", r"(\d+)").replace(r"\*", r"(\w+)")
    numbers = iter(range(1, 9))
    template = re.sub(r"[#*]", lambda _: rf"\g<{next(numbers)}>", target)
    return re.compile(pattern), template
