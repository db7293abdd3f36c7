"""Which backend the operators of a whole model run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from internimage.ops.backends import check_name


def set_backend(model: nn.Module, backend: str) -> None:
    """Let every operator of a model run on this backend from now on, see `internimage.ops.dcnv3`.

    Raises:
        ValueError: there is no such backend.
    """
    check_name("dcnv3", backend)
    for part in _parts(model):
        vars(part)["backend"] = backend


@contextmanager
def backend_for_a_while(model: nn.Module, backend: str) -> Iterator[None]:
    """Do what `set_backend` does, and put back what was there."""
    before = [(part, vars(part)["backend"]) for part in _parts(model)]
    set_backend(model, backend)
    try:
        yield
    finally:
        for part, own in before:
            vars(part)["backend"] = own


def _parts(model: nn.Module) -> list[nn.Module]:
    return [part for part in model.modules() if isinstance(vars(part).get("backend"), str)]
