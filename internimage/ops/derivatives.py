"""Derivatives of an operator beyond the ordinary backward pass.

Forward mode and second derivatives go through the exact form of the reference, whose every step torch can
differentiate. `torch.func` transforms of first derivatives run the chosen backend: `vmap` joins its axis with the
images, which all operators treat alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

Tensors = tuple[Tensor, ...]


class Operator(NamedTuple):
    """One operator on one backend with its settings.

    Args:
        forward: the tensors to the output.
        backward: the output's gradient and the tensors to the gradients of the tensors.
        exact: the same as `forward` in ordinary torch operators.
    """

    forward: Callable[..., Tensor]
    backward: Callable[..., Tensors]
    exact: Callable[..., Tensor]


def is_dual_level() -> bool:
    """Whether tensors may carry forward-mode tangents here."""
    return forward_ad._current_level >= 0


def is_transformed() -> bool:
    """Whether something differentiates or maps operators here that steps without a derivative would not show to it."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def transform(operator: Operator, values: Tensors) -> Tensor:
    """Run an operator where `torch.func` transforms it."""
    return _Applied.apply(operator, *values)


def differentiate(operator: Operator, grad: Tensor, values: Tensors) -> Tensors:
    """The first gradients, themselves differentiable."""
    if is_dual_level():
        return _pull(operator.exact, values, grad)
    return _Gradient.apply(operator, grad, *values)


def differentiate_twice(operator: Operator, saved: Tensors, upstream: Tensors) -> Tensors:
    """Gradients of what `operator.backward` was given, `saved`, for gradients `upstream` of what it returned."""
    return _pull(lambda grad, *values: _pull(operator.exact, values, grad), saved, upstream)


def _pull(function: Callable[..., Any], values: Tensors, upstream: Any) -> Tensors:
    return torch.func.vjp(function, *values)[1](upstream)


class _Applied(torch.autograd.Function):
    """An operator that `torch.func` can transform; its first arguments are an `Operator` and the tensors."""

    @staticmethod
    def forward(operator: Operator, *values: Tensor) -> Tensor:  # type: ignore[override]  # torch: *args
        return operator.forward(*values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.operator, *values = inputs
        ctx.save_for_backward(*values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # torch: *args
        return None, *differentiate(ctx.operator, grad, ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        joined = _join(info.batch_size, in_dims[1:], args[1:])
        return _part(info.batch_size, _Applied.apply(args[0], *joined)), 0


class _Gradient(torch.autograd.Function):
    """The first gradients of an operator, which can be differentiated and transformed in turn."""

    @staticmethod
    def forward(operator: Operator, grad: Tensor, *values: Tensor) -> Tensors:  # type: ignore[override]  # torch: *args
        return operator.backward(grad, *values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        ctx.operator, *values = inputs
        ctx.save_for_backward(*values)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # torch: *args
        return None, *differentiate_twice(ctx.operator, ctx.saved_tensors, upstream)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensors, tuple[int, ...]]:
        joined = _join(info.batch_size, in_dims[1:], args[1:])
        gradients = _Gradient.apply(args[0], *joined)
        return tuple(_part(info.batch_size, gradient) for gradient in gradients), (0,) * len(gradients)


def _join(size: int, in_dims: tuple[int | None, ...], values: Tensors) -> Tensors:
    """The axis of vmap joined with the first one: (V, N, ...) as (V*N, ...)."""
    moved = [
        value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
        for value, dim in zip(values, in_dims, strict=True)
    ]
    return tuple(value.flatten(0, 1) for value in moved)


def _part(size: int, value: Tensor) -> Tensor:
    """Undo `_join`."""
    return value.reshape(size, value.shape[0] // size, *value.shape[1:])
