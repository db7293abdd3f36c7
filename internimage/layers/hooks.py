"""Whether somebody watches or changes the calls of a layer, which then has to be called."""

from __future__ import annotations

from torch import nn


def has_hooks(*layers: nn.Module) -> bool:
    """Whether a call of one of the layers would do more than its `forward`; DeepSpeed, say, gathers weights there.

    Example:
        >>> has_hooks(nn.Linear(2, 2))
        False
    """
    return any(
        layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
        for layer in layers
    )
