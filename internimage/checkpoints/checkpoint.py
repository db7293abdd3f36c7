"""One form for every checkpoint: original names without prefixes, shapes, and a way to read the tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from internimage.checkpoints.formats.containers import find_weights
from internimage.checkpoints.header import Document
from internimage.checkpoints.rename import (
    BACKBONE_PREFIX,
    PREFIXED_HEADS,
    Value,
    from_huggingface,
    is_backbone_key,
    own_head_kind,
    strip_prefix,
    to_official,
)
from internimage.classification import PreprocessConfig
from internimage.errors import clean_name, printable
from internimage.types import Palette

EMA_PREFIX = "ema_"
# What our names of the stem can begin with.
OWN_PREFIXES = ("", "backbone.", "backbone.backbones.0.")
MAX_SETTINGS = 10_000
MAX_SETTINGS_DEPTH = 8


@dataclass(frozen=True)
class Checkpoint:
    """The weights of one model and what their file says about it.

    Args:
        source: what to call it in messages.
        shapes: original name and shape of every tensor of the model; the names in a detector or a segmentor start with
            the part they belong to, such as "backbone.", others have no prefix.
        open: returns the tensors by the same names; mapped from the file unless `in_memory`.
        in_memory: whether the tensors may be used as they are; mapped ones are copied, because their file may change.
        document: the description in a file of ours.
        settings: original-style settings found beside the weights.
        preprocess: preprocessing found beside the weights.
        class_names: names found beside the weights.
        model_settings: original settings of a detector or a segmentor found beside the weights.
        palette: colors of the classes found beside the weights.
        is_part: whether the weights are those of a larger model, such as a detector or a segmentor.
        is_folder: whether they come with the `config.json` of a Transformers folder.
    """

    source: str
    shapes: Mapping[str, tuple[int, ...]]
    open: Callable[[], Mapping[str, Tensor]]
    in_memory: bool = False
    document: Document | None = None
    settings: Mapping[str, Any] | None = None
    preprocess: PreprocessConfig | None = None
    class_names: tuple[str, ...] | None = None
    model_settings: Mapping[str, Any] | None = None
    palette: Palette | None = None
    is_part: bool = False
    is_folder: bool = False

    def backbone(self) -> Checkpoint:
        """Return the backbone's part of this checkpoint."""
        inner = _backbone_part(self.shapes)
        shapes = {key: shape for key, shape in inner.items() if is_backbone_key(key)}
        return Checkpoint(
            self.source, shapes, lambda: _backbone_part(self.open()), in_memory=self.in_memory, is_part=True
        )


class Unpacked(NamedTuple):
    """Weights by original names without prefixes; whether they are those of a larger model; where they lay."""

    tensors: dict[str, Tensor]
    is_part: bool
    where: str


def unpack(content: Any, source: str, ema: bool | None) -> Unpacked:
    """Find the weights in the object of a checkpoint file and give them original names without prefixes.

    Args:
        content: what the file held.
        source: what to call the file in messages.
        ema: True for the averaged weights, False for the raw ones, None for the raw ones if there are any.

    Raises:
        ValueError: there are no weights, not of the kind asked for, or those of several models.
    """
    found = find_weights(content, source, ema)
    state = _averaged(found.tensors, source, ema is True and not found.is_averaged)
    where = found.where or "the file itself"
    if found.is_averaged or ema is True:
        where = f"the averaged weights in {where}"
    if any(f"{prefix}patch_embed.norm1.weight" in state for prefix in OWN_PREFIXES):
        head = own_head_kind(state)
        return Unpacked(_from_ours(state, head), head in PREFIXED_HEADS, where)
    bare = from_huggingface(strip_prefix(state, BACKBONE_PREFIX))
    return Unpacked(bare, any(key.startswith(BACKBONE_PREFIX) for key in bare), where)


def _from_ours(state: Mapping[str, Tensor], head: str | None) -> dict[str, Tensor]:
    """Give original names to our own; a backbone below "backbone." may stand beside layers of somebody's own."""
    if head is not None or not any(key.startswith(BACKBONE_PREFIX) for key in state):
        return to_official(state, head)
    others = {key: value for key, value in state.items() if not key.startswith(BACKBONE_PREFIX)}
    return {**to_official(_backbone_part(state), None), **others}


def _backbone_part(state: Mapping[str, Value]) -> dict[str, Value]:
    """Return the entries of the backbone of a larger model without their prefix; others come back unchanged."""
    inner = {key: value for key, value in state.items() if key.startswith(BACKBONE_PREFIX)}
    return strip_prefix(inner, BACKBONE_PREFIX) if inner else dict(state)


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor."""
    return {key: tuple(value.shape) for key, value in state.items()}


def plain_settings(content: Any) -> dict[str, Any] | None:
    """Return a stored classifier configuration as plain values, or None where there is none.

    A hostile file can nest objects so that they unfold without end; a configuration beyond the limits counts as none.
    """
    config = content.get("config") if isinstance(content, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(config.get("MODEL"), Mapping):
        return None
    budget = [MAX_SETTINGS]
    parts = {name: _plain(config.get(name), budget, MAX_SETTINGS_DEPTH) for name in ("MODEL", "DATA")}
    return parts if budget[0] > 0 else None


def plain_names(content: Any) -> tuple[str, ...] | None:
    """Return the class names stored in a checkpoint file, or None."""
    names = content.get("class_names") if isinstance(content, Mapping) else None
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return tuple(map(clean_name, names))
    return None


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


def _plain(value: Any, budget: list[int], depth: int) -> Any:
    """Copy dictionaries, lists and simple values; anything else, and what exceeds the budget, becomes None."""
    budget[0] -= 1
    if budget[0] <= 0 or depth == 0:
        return None
    if isinstance(value, Mapping):
        return {str(k): _plain(v, budget, depth - 1) for k, v in value.items() if isinstance(k, str)}
    if isinstance(value, list | tuple):
        return [_plain(v, budget, depth - 1) for v in value]
    return value if isinstance(value, str | int | float | bool) else None
