"""One form for every checkpoint: original names without prefixes, shapes, and a way to read the tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from torch import Tensor

from internimage.backbones.original.names import BACKBONE, PREFIX, Rules
from internimage.checkpoints.formats.containers import find_weights
from internimage.checkpoints.rename import Value, from_huggingface, is_backbone_key, strip_prefix, to_original
from internimage.errors import printable
from internimage.flow import Checkpoint, ConfigClass, Settings

EMA_PREFIX = "ema_"
# What our names of the stem can begin with.
OWN_PREFIXES = ("", "backbone.", "backbone.backbones.0.")
MAX_SETTINGS = 10_000
MAX_SETTINGS_DEPTH = 8


class KnownModels(NamedTuple):
    """What the tasks say about the files of their models, see `internimage.tasks.known`."""

    configs: Mapping[str, ConfigClass]  # by what the header of a file of ours calls them
    key_rules: Mapping[str, Rules]  # by kind
    own_kind: Callable[[Collection[str]], str | None]  # our names of the parameters -> kind


def backbone_of(checkpoint: Checkpoint) -> Checkpoint:
    """Return the backbone's part of a checkpoint."""
    inner = _backbone_part(checkpoint.shapes)
    shapes = {key: shape for key, shape in inner.items() if is_backbone_key(key)}
    return Checkpoint(
        checkpoint.source,
        shapes,
        lambda: _backbone_part(checkpoint.open()),
        in_memory=checkpoint.in_memory,
        is_part=True,
    )


def is_larger_model(rules: Rules) -> bool:
    """Whether the original names of a model keep the prefix of its backbone."""
    return any(original.startswith(PREFIX) for _, original in rules)


class Unpacked(NamedTuple):
    """Weights by original names without prefixes; whether they are those of a larger model; where they lay."""

    tensors: dict[str, Tensor]
    is_part: bool
    where: str


def unpack(content: object, source: str, ema: bool | None, known: KnownModels) -> Unpacked:
    """Find the weights in the object of a checkpoint file and give them original names without prefixes.

    Args:
        content: what the file held.
        source: what to call the file in messages.
        ema: True for the averaged weights, False for the raw ones, None for the raw ones if there are any.
        known: the models that there are.

    Raises:
        ValueError: there are no weights, not of the kind asked for, or those of several models.
    """
    found = find_weights(content, source, ema)
    state = _averaged(found.tensors, source, ema is True and not found.is_averaged)
    where = found.where or "the file itself"
    if found.is_averaged or ema is True:
        where = f"the averaged weights in {where}"
    if any(f"{prefix}patch_embed.norm1.weight" in state for prefix in OWN_PREFIXES):
        kind = known.own_kind(state.keys())
        rules = None if kind is None else known.key_rules[kind]
        return Unpacked(_from_ours(state, rules), rules is not None and is_larger_model(rules), where)
    bare = from_huggingface(strip_prefix(state, PREFIX))
    return Unpacked(bare, any(key.startswith(PREFIX) for key in bare), where)


def _from_ours(state: Mapping[str, Tensor], rules: Rules | None) -> dict[str, Tensor]:
    """Give original names to our own; a backbone below "backbone." may stand beside layers of somebody's own."""
    if rules is not None:
        return to_original(state, rules)
    others = {key: value for key, value in state.items() if not key.startswith(PREFIX)}
    if len(others) == len(state):
        return to_original(state, BACKBONE)
    return {**to_original(_backbone_part(state), BACKBONE), **others}


def _backbone_part(state: Mapping[str, Value]) -> dict[str, Value]:
    """Return the entries of the backbone of a larger model without their prefix; others come back unchanged."""
    inner = {key: value for key, value in state.items() if key.startswith(PREFIX)}
    return strip_prefix(inner, PREFIX) if inner else dict(state)


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor."""
    return {key: tuple(value.shape) for key, value in state.items()}


def plain_settings(content: object) -> Settings | None:
    """Return a stored classifier configuration as plain values, or None where there is none.

    A hostile file can nest objects so that they unfold without end; a configuration beyond the limits counts as none.
    """
    config = content.get("config") if isinstance(content, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(config.get("MODEL"), Mapping):
        return None
    budget = [MAX_SETTINGS]
    parts = {name: _plain(config.get(name), budget, MAX_SETTINGS_DEPTH) for name in ("MODEL", "DATA")}
    return parts if budget[0] > 0 else None


def _averaged(state: dict[str, Tensor], source: str, wanted: bool) -> dict[str, Tensor]:
    """Choose between the weights and their "ema_" copies, whose names have underscores for dots."""
    copies = {key: value for key, value in state.items() if key.startswith(EMA_PREFIX)}
    weights = {key: value for key, value in state.items() if key not in copies}
    if not wanted:
        return weights
    names = {key: EMA_PREFIX + key.replace(".", "_") for key in weights}
    missing = [name for name in names.values() if name not in copies]
    if missing:
        raise ValueError(
            f"{source} holds no averaged weights: {len(missing)} of {len(names)} entries have no copy, "
            f"first {printable(missing[0], 80)}; load it with ema=None"
        )
    return {key: copies[name] for key, name in names.items()}


def _plain(value: object, budget: list[int], depth: int) -> object:
    """Copy dictionaries, lists and simple values; anything else, and what exceeds the budget, becomes None."""
    budget[0] -= 1
    if budget[0] <= 0 or depth == 0:
        return None
    if isinstance(value, Mapping):
        return {str(k): _plain(v, budget, depth - 1) for k, v in value.items() if isinstance(k, str)}
    if isinstance(value, list | tuple):
        return [_plain(v, budget, depth - 1) for v in value]
    return value if isinstance(value, str | int | float | bool) else None
