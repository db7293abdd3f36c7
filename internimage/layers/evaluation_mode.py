"""Evaluation mode for a while, right also when several threads use one model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn

from internimage.layers.fused import Twin, use_twins

_lock = threading.Lock()
_in_use: WeakKeyDictionary[nn.Module, tuple[int, bool]] = WeakKeyDictionary()  # users, and the mode before the first


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every part of a model into evaluation mode; what was in training mode returns to it after the last user.

    Parts are remembered one by one: frozen ones may differ from the whole. Threads may overlap; the modes come back
    when none of them needs evaluation mode any more. Meanwhile layers run as their inference twins.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm2d(3)).train()
        >>> with evaluation_mode(model):
        ...     model.training, model[0].training
        (False, False)
        >>> model.training
        True
    """
    parts = list(model.modules())
    with _lock:
        for part in parts:
            users, mode = _in_use.get(part, (0, part.training))
            _in_use[part] = (users + 1, mode)
            part.training = False
        use_twins(model)
    try:
        yield
    finally:
        with _lock:
            for part in parts:
                users, mode = _in_use.pop(part)
                if users > 1:
                    _in_use[part] = (users - 1, mode)
                    continue
                part.training = mode
                if mode and isinstance(part, Twin):
                    part.use_plain()
