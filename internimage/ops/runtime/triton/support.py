"""What every Triton backend needs on the host: can it run, how large its tiles are, how it accumulates grad_x.

This file imports no triton, so that asking whether a backend can run costs nothing.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from internimage.ops.backends import Backend

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def interpreting() -> bool:
    """Whether Triton runs its kernels on the CPU, one program after the other; set before Python starts."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


def missing_reason(device: str, dtype: torch.dtype) -> str | None:
    """Why the Triton kernels cannot run on tensors of this device type and dtype, or None when they can."""
    if device != "cuda" and not (device == "cpu" and interpreting()):
        return f"the Triton kernels run on cuda tensors, given {device}"
    if dtype not in _DTYPES:
        return f"the Triton kernels support float32, float16 and bfloat16, given {dtype}"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed; on Linux it comes with the CUDA build of torch"
    return None


def lazy_backend(module: str) -> Backend:
    """The backend of a kernel_triton.py that is imported, with triton, at its first call."""

    @functools.cache
    def load() -> Any:
        return importlib.import_module(module)

    def forward(*args: Any) -> Tensor:
        return load().forward(*args)

    def backward(*args: Any) -> tuple[Tensor, ...]:
        return load().backward(*args)

    return Backend(missing_reason, forward, backward, is_traceable=True)


def standard_backends(cpp: ModuleType, triton: str, reference: ModuleType) -> dict[str, Backend]:
    """The backends of an operator in the order of preference, given the modules that hold them, one of them by name."""
    compiled, plain = (Backend(m.missing_reason, m.forward, m.backward) for m in (cpp, reference))
    return {"cpp": compiled, "triton": lazy_backend(triton), "reference": plain}


def device_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Make the tensor's device the current one: Triton launches on the current device."""
    if tensor.is_cuda and torch.cuda.device_count() > 1:
        return torch.cuda.device(tensor.device)
    return contextlib.nullcontext()


def next_power_of_two(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()


def is_wide(*elements: int) -> bool:
    """Whether kernels must number the elements of an image in 64 bits, given how many the tensors have."""
    return max(elements) >= 2**31 - 2**20


class GradientSum:
    """Where the kernels add up the gradient of a map, in any order.

    Without `torch.use_deterministic_algorithms` that is float32. With it, 64-bit integers: each term is rounded to a
    fixed fraction, so the sum is the same whatever the order. The fraction leaves room for every term at its largest,
    and is far finer than float32.

    Args:
        shape: shape of the map.
        grad: gradient of the output.
        largest_weight: bound of the weights' absolute values.
        terms: bound of the number of terms of one element.
    """

    def __init__(
        self, shape: torch.Size, grad: Tensor, largest_weight: Callable[[], Tensor | float], terms: int
    ) -> None:
        self.fixed = torch.are_deterministic_algorithms_enabled()
        self.limit: Tensor | float = 1.0
        if self.fixed:
            bound = grad.abs().amax().double() * largest_weight() * terms
            self.limit = torch.where(bound == 0, 1.0, 2.0**61 / bound).reshape(1)  # NaN where a gradient is NaN
            self.sum = torch.zeros(shape, dtype=torch.int64, device=grad.device)
        else:
            self.sum = torch.zeros(shape, dtype=torch.float32, device=grad.device)

    def result(self, dtype: torch.dtype) -> Tensor:
        """The gradient in `dtype`."""
        return (self.sum / self.limit if self.fixed else self.sum).to(dtype)
