"""What a training step keeps in memory: every storage that torch makes, from its making to its end.

The tensors may be real or without values (meta, fake): shapes and lifetimes are the same, and nothing is computed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of storages made within the block.

    Attributes:
        live: bytes now.
        gradients: those of them that are finished gradients of weights.
        peak: most bytes at once without these gradients.
        peak_with_gradients: most bytes at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.gradients = self.peak = self.peak_with_gradients = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operator and count what it made."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())
        return result

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Never count these, which were made before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._known[id(storage)] = weakref.ref(storage)

    def finish_gradient(self, parameter: Tensor) -> None:
        """Take note that the gradient of a weight is finished and stays."""
        assert parameter.grad is not None
        self.gradients += parameter.grad.untyped_storage().nbytes()

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        known = self._known.get(key)
        if known is not None and known() is storage:
            return

        def ended(_: object) -> None:
            self.live -= size

        self._known[key] = weakref.ref(storage, ended)
        self.live += size
        self.peak = max(self.peak, self.live - self.gradients)
        self.peak_with_gradients = max(self.peak_with_gradients, self.live)


@dataclass(frozen=True)
class StepMemory:
    """What a forward and a backward pass need beside the weights.

    Args:
        kept: bytes at the end of the forward pass, kept for the backward pass.
        peak: most bytes at once without the gradients of weights that are finished.
        peak_with_gradients: most bytes at once.
        gradients: bytes of these gradients at the end.
    """

    kept: int
    peak: int
    peak_with_gradients: int
    gradients: int


def step_memory(model: nn.Module, loss: Callable[[], Tensor]) -> StepMemory:
    """Run a forward and a backward pass and count.

    Args:
        model: what is trained; it has no gradients before, and afterward.
        loss: runs the forward pass; what it makes, inputs too, is counted.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with LiveMemory() as memory:
        memory.leave_out([*model.parameters(), *model.buffers()])
        hooks = [parameter.register_post_accumulate_grad_hook(memory.finish_gradient) for parameter in trained]
        total = loss()
        kept = memory.live
        total.backward()
    for hook in hooks:
        hook.remove()
    for parameter in trained:
        parameter.grad = None
    return StepMemory(kept, memory.peak, memory.peak_with_gradients, memory.gradients)
