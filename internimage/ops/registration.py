"""Register an operator with torch: schema, dispatch to a backend, fake tensors and gradients, all in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from internimage.ops import backends
from internimage.ops.backends import Backend

_library = torch.library.Library("internimage", "FRAGMENT")


def register_operator(
    name: str,
    *,
    tensors: tuple[str, ...],
    settings: str,
    make_settings: Callable[..., Any],
    output_shape: Callable[..., tuple[int | torch.SymInt, ...]],
    implementations: Mapping[str, Backend],
) -> None:
    """Define `internimage::<name>` and `internimage::<name>_backward`.

    Args:
        name: the operator's name.
        tensors: names of its tensor arguments; the first one decides device and dtype, all have a gradient.
        settings: schema of the arguments after the tensors, without the backend's name, which comes last.
        make_settings: the values of `settings` to the object that the backends take.
        output_shape: the tensors and that object to the shape of the output.
        implementations: backend name to backend, in the order in which "auto" tries them.
    """
    count = len(tensors)
    arguments = ", ".join(f"Tensor {tensor}" for tensor in tensors) + f", {settings}, str backend"
    _library.define(f"{name}({arguments}) -> Tensor")
    _library.define(f"{name}_backward(Tensor grad, {arguments}) -> ({', '.join('Tensor' for _ in tensors)})")
    backends.register(name, implementations)

    def forward(*values: Any) -> Tensor:
        chosen = backends.choose(name, values[-1], values[0].device.type, values[0].dtype)
        return chosen.forward(*values[:count], make_settings(*values[count:-1]))

    def backward(grad: Tensor, *values: Any) -> tuple[Tensor, ...]:
        chosen = backends.choose(name, values[-1], values[0].device.type, values[0].dtype)
        return chosen.backward(grad, *values[:count], make_settings(*values[count:-1]))

    def fake_forward(*values: Any) -> Tensor:
        return values[0].new_empty(output_shape(*values[:count], make_settings(*values[count:-1])))

    def fake_backward(grad: Tensor, *values: Any) -> tuple[Tensor, ...]:
        return tuple(tensor.new_empty(tensor.shape) for tensor in values[:count])

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:count])
        ctx.settings = inputs[count:]

    def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        operator = getattr(torch.ops.internimage, f"{name}_backward")
        return (*operator(grad, *ctx.saved_tensors, *ctx.settings), *(None for _ in ctx.settings))

    _library.impl(name, forward, "CompositeExplicitAutograd")
    _library.impl(f"{name}_backward", backward, "CompositeExplicitAutograd")
    torch.library.register_fake(f"internimage::{name}", fake_forward, lib=_library)
    torch.library.register_fake(f"internimage::{name}_backward", fake_backward, lib=_library)
    torch.library.register_autograd(f"internimage::{name}", gradients, setup_context=save, lib=_library)
