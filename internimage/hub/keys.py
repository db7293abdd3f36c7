"""Names of parameters in our models and in the original's, told by the kind of a model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from internimage import tasks
from internimage.backbones.original.names import BACKBONE, Rules
from internimage.checkpoints.rename import Value, to_original, to_ours
from internimage.flow import AnyModel


def from_official(state: Mapping[str, Value], kind: str | None) -> dict[str, Value]:
    """Rename the entries of an original model to ours, see `checkpoints.rename.to_ours`.

    `kind` is that of the model's configuration, None for a bare backbone without prefix.
    """
    return to_ours(state, _rules(kind))


def to_official(state: Mapping[str, Value], kind: str | None) -> dict[str, Value]:
    """Rename our entries to the original's; the inverse of `from_official`.

    Raises:
        ValueError: a name is none of ours.
    """
    return to_original(state, _rules(kind))


def original_state(model: AnyModel) -> dict[str, Tensor]:
    """Return the weights of a model by the original's names, contiguous and on the CPU."""
    state = to_official(model.state_dict(), model.config.kind)
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


def _rules(kind: str | None) -> Rules:
    return BACKBONE if kind is None else tasks.known().key_rules[kind]
