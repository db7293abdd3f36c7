"""The only place that chooses how an operator runs, and that says why a backend cannot run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from internimage.errors import BackendUnavailable


def no_backward(*values: Any) -> Any:
    """The backward pass of an operator for inference.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError("this operator is for inference and has no gradients; run it under torch.no_grad()")


class Backend(NamedTuple):
    """One implementation of one operator.

    Args:
        missing_reason: for a device type ("cpu", "cuda") and dtype, why it cannot run, or None when it can.
        forward: the operator's tensors and settings to its output.
        backward: the output's gradient, the tensors and settings to the tensors' gradients.
        is_traceable: whether a compiler can trace its launches, to make them itself.
    """

    missing_reason: Callable[[str, torch.dtype], str | None]
    forward: Callable[..., Any]
    backward: Callable[..., Any] = no_backward
    is_traceable: bool = False


class Support(NamedTuple):
    """Whether one backend of one operator runs here; `reason` is empty when it does."""

    operator: str
    backend: str
    device: str
    dtype: torch.dtype
    runs: bool
    reason: str


# operator -> backend name -> backend, in the order in which "auto" tries them
_TABLE: dict[str, Mapping[str, Backend]] = {}
_chosen: dict[tuple[str, str, str, torch.dtype], Backend] = {}


def register(operator: str, backends: Mapping[str, Backend]) -> None:
    """Add an operator; the order of `backends` is the order of preference."""
    _TABLE[operator] = backends


def check_name(operator: str, backend: str) -> None:
    """Raise ValueError when `backend` is not a name that `operator` knows."""
    if backend != "auto" and backend not in _TABLE[operator]:
        raise ValueError(f"backend must be one of {('auto', *_TABLE[operator])}, given {backend!r}")


def choose(operator: str, backend: str, device: str, dtype: torch.dtype) -> Backend:
    """The backend to run `operator` on tensors of this device type and dtype.

    Raises:
        BackendUnavailable: a named backend cannot run, or none can; the message says why.
    """
    key = (operator, backend, device, dtype)
    found = _chosen.get(key)
    if found is None:
        found = _chosen[key] = _find(*key)
    return found


def runs(operator: str, backend: str, device: str, dtype: torch.dtype) -> bool:
    """Whether this backend of `operator` runs on tensors of this device type and dtype."""
    return _TABLE[operator][backend].missing_reason(device, dtype) is None


def _find(operator: str, backend: str, device: str, dtype: torch.dtype) -> Backend:
    reasons = []
    for name, candidate in _TABLE[operator].items():
        if backend not in ("auto", name):
            continue
        reason = candidate.missing_reason(device, dtype)
        if reason is None:
            return candidate
        reasons.append(f"{name}: {reason}")
    given = f"{operator} with backend={backend!r} cannot run on {device} tensors of {dtype}"
    raise BackendUnavailable(f"{given}. {'; '.join(reasons)}")


def support_table(
    devices: tuple[str, ...] = ("cpu", "cuda"),
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float16, torch.bfloat16, torch.float64),
) -> list[Support]:
    """Every (operator with gradients, backend, device, dtype) with the reason when it does not run here."""
    rows = []
    for operator, backends in _TABLE.items():
        for name, backend in backends.items():
            if backend.backward is no_backward:
                continue
            for device in devices:
                for dtype in dtypes:
                    reason = backend.missing_reason(device, dtype)
                    if reason is None and device == "cuda" and not torch.cuda.is_available():
                        reason = "torch sees no CUDA device"
                    rows.append(Support(operator, name, device, dtype, reason is None, reason or ""))
    return rows
