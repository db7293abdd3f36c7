"""Where the weights lie in the object of a checkpoint file, and what wrappers have put in front of their names.

Weights may lie in any dictionary of the file ("model", "state_dict", "model_ema", "ema" and so on, also inside one
another), and below any prefix: of wrappers ("module.", "_orig_mod.", repeated and in any order) and of the attribute
that held the model ("model.", "net."). The stem, which every model has, tells where the prefix ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from internimage.errors import printable

RAW_CONTAINERS = ("model", "module", "state_dict")
EMA_CONTAINERS = ("model_ema", "state_dict_ema", "ema")
# Parts of names that wrappers add anywhere: data parallel and averages, torch.compile, sharding, checkpointing.
WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"))
AVERAGE_WORDS = frozenset(("ema", "swa", "averaged", "average"))
AVERAGE_COUNTER = "n_averaged"  # of torch's AveragedModel
STEM = re.compile(r"(.*?)(?:backbone\.)?(?:(?:backbones|cb_modules)\.\d+\.)?patch_embed\.")
MAX_NESTING = 4
MAX_CONTAINERS = 1000
MAX_MODELS = 16
MAX_DIMENSIONS = 32


@dataclass(frozen=True)
class Weights:
    """One set of weights in a file.

    Args:
        where: dictionaries and prefix that lead to it, for example "state_dict: model."; empty for the file itself.
        tensors: the tensors by their names below the prefix.
        is_averaged: whether they are averages of the weights of several steps.
    """

    where: str
    tensors: dict[str, Tensor]
    is_averaged: bool


def without_wrappers(key: str) -> str:
    """Return the name of a parameter without what wrappers have added.

    Example:
        >>> without_wrappers("module._orig_mod.backbone.module.levels.0.norm.weight")
        'backbone.levels.0.norm.weight'
    """
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def find_weights(content: object, source: str, ema: bool | None) -> Weights:
    """Return the weights of one model in the object of a checkpoint file, see `checkpoints.checkpoint.unpack`.

    Raises:
        ValueError: there are no weights, none of the kind asked for, or those of several models.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{source} holds a {type(content).__name__}, expected a dictionary of tensors")
    found = [weights for path, tensors in _paths(content) for weights in _models(path, tensors, source)]
    raw = [weights for weights in found if not weights.is_averaged]
    averaged = [weights for weights in found if weights.is_averaged]
    if ema is True and averaged:
        return _first(averaged, EMA_CONTAINERS, source)
    if raw:
        return _first(raw, RAW_CONTAINERS, source)
    if not averaged:
        return _any_tensors(content, source)
    if ema is False:
        raise ValueError(f"{source} holds averaged weights only; load it with ema=None or ema=True")
    return _first(averaged, EMA_CONTAINERS, source)


def _paths(content: Mapping[object, object]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield every dictionary of tensors in a file, with the names that lead to it."""
    waiting: list[tuple[tuple[str, ...], Mapping[object, object]]] = [((), content)]
    for _ in range(MAX_CONTAINERS):
        if not waiting:
            return
        path, container = waiting.pop(0)
        named = [(key, value) for key, value in container.items() if isinstance(key, str)]
        tensors = {key: value for key, value in named if isinstance(value, Tensor)}
        if tensors:
            yield path, tensors
        if len(path) < MAX_NESTING:
            waiting += [((*path, key), value) for key, value in named if isinstance(value, Mapping)]


def _models(path: Sequence[str], tensors: Mapping[str, Tensor], source: str) -> Iterator[Weights]:
    """Yield the models of one dictionary: all names below one prefix belong to one of them."""
    names = _without_wrappers(tensors, source)
    prefixes = list(dict.fromkeys(match[1] for name in names if (match := STEM.match(name))))
    if len(prefixes) > MAX_MODELS:
        raise ValueError(f"{source} holds the weights of {len(prefixes)} models; save the one you mean on its own")
    members: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in prefixes}
    for name, value in names.items():
        owner = max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default=None)
        if owner is not None:
            members[owner][name[len(owner) :]] = value
    for prefix, inner in members.items():
        words = set(re.split(r"[._]", ".".join((*path, prefix)).lower()))
        is_averaged = inner.pop(AVERAGE_COUNTER, None) is not None or bool(words & AVERAGE_WORDS)
        _check_tensors(inner, source)
        yield Weights(": ".join(part for part in (".".join(path), prefix) if part), inner, is_averaged)


def _without_wrappers(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    names: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = without_wrappers(key)
        if name in names:
            raise ValueError(f"{source}: two entries of the file become {printable(name)!r} without wrappers")
        names[name] = value
    return names


def _first(found: Sequence[Weights], order: Sequence[str], source: str) -> Weights:
    """Return the weights in the first of the usual places; elsewhere there must be one model only."""
    for name in order:
        usual = [weights for weights in found if weights.where.split(":")[0].split(".")[0] == name]
        if len(usual) == 1:
            return usual[0]
        found = usual or found
    if len(found) > 1:
        places = ", ".join(repr(printable(weights.where, 40)) for weights in found[:6])
        raise ValueError(f"{source} holds the weights of several models: {places}; save the one you mean on its own")
    return found[0]


def _any_tensors(content: Mapping[object, object], source: str) -> Weights:
    """Return the tensors of a file without a stem: of the usual path, or of the file itself."""
    usual = [content.get(name) for name in (*RAW_CONTAINERS, *EMA_CONTAINERS)]
    container = next((found for found in usual if isinstance(found, Mapping)), content)
    tensors = {key: value for key, value in container.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        names = ", ".join(printable(key, 40) for key in list(container)[:8])
        raise ValueError(f"{source} holds no weights; its entries are {names or '(none)'}")
    _check_tensors(tensors, source)
    return Weights("", _without_wrappers(tensors, source), is_averaged=False)


def _check_tensors(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise unless each tensor is what it seems."""
    for key, value in tensors.items():
        name = printable(key, 80)
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.ndim > MAX_DIMENSIONS:
            raise ValueError(f"{source}: {name} is no plain dense tensor")
        # A file of a few bytes can describe a tensor of any size by strides of zero.
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{source}: {name} claims {value.numel()} values, its storage holds fewer")
