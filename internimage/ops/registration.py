"""Register an operator with torch: schema, dispatch to a backend, fake tensors and gradients, all in one place.

Plain tensors in plain eager mode take a direct way to the backend, which saves most of the time that torch spends on an
operator written in Python; everything that observes or transforms operators (compile, export, functorch, dispatch
modes, tensor subclasses, the profiler, tracing) sees the registered one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import _profiler_enabled
from torch.autograd.function import once_differentiable
from torch.nn import Parameter

from internimage.ops import backends
from internimage.ops.backends import Backend, choose

_library = torch.library.Library("internimage", "FRAGMENT")


def register_operator(
    name: str,
    *,
    tensors: tuple[str, ...],
    settings: str,
    make_settings: Callable[..., Any],
    output_shape: Callable[..., tuple[int | torch.SymInt, ...]],
    implementations: Mapping[str, Backend],
) -> Callable[[tuple[Tensor, ...], Any, str], Tensor]:
    """Define `internimage::<name>` and `internimage::<name>_backward`.

    Args:
        name: the operator's name.
        tensors: names of its tensor arguments; the first one decides device and dtype, all have a gradient.
        settings: schema of the arguments after the tensors, without the backend's name, which comes last.
        make_settings: the values of `settings` to the object that the backends take.
        output_shape: the tensors and that object to the shape of the output.
        implementations: backend name to backend, in the order in which "auto" tries them.

    Returns:
        A function (tensors, settings, backend) that runs the operator; `settings` iterates over what the schema lists.
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

    def run(values: tuple[Tensor, ...], chosen_settings: Any, backend: str) -> Tensor:
        if not is_plain(*values):
            return registered(*values, *chosen_settings, backend)
        chosen = choose(name, backend, values[0].device.type, values[0].dtype)
        if torch.is_grad_enabled() and any(value.requires_grad for value in values):
            return _Direct.apply(chosen, chosen_settings, *values)
        return chosen.forward(*values, chosen_settings)

    _library.impl(name, forward, "CompositeExplicitAutograd")
    _library.impl(f"{name}_backward", backward, "CompositeExplicitAutograd")
    torch.library.register_fake(f"internimage::{name}", fake_forward, lib=_library)
    torch.library.register_fake(f"internimage::{name}_backward", fake_backward, lib=_library)
    torch.library.register_autograd(f"internimage::{name}", gradients, setup_context=save, lib=_library)
    registered = getattr(torch.ops.internimage, name)
    return run


class _Direct(torch.autograd.Function):
    """A backend with its gradients, without the registered operator around it."""

    @staticmethod
    def forward(ctx: Any, chosen: Backend, settings: Any, *values: Tensor) -> Tensor:
        ctx.save_for_backward(*values)
        ctx.chosen, ctx.settings = chosen, settings
        return chosen.forward(*values, settings)

    # torch declares `*args`; there is one output and so one gradient.
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (None, None, *ctx.chosen.backward(grad, *ctx.saved_tensors, ctx.settings))


def is_plain(*values: Tensor) -> bool:
    """Whether nothing but eager autograd would see an operator on these tensors."""
    return is_eager(*values) and not _profiler_enabled()


def may_divide(x: Tensor) -> bool:
    """Whether a large step on `x` may be done in parts to save memory: eager inference on a CPU outside of autocast.

    Gradients would keep every part, a compiler or exporter would see a loop, and other devices want large steps.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    return is_eager(x)


def is_eager(*values: Tensor) -> bool:
    """Whether an operator on these tensors runs at once, seen by nothing but autograd and the profiler."""
    for value in values:
        if type(value) is not Tensor and type(value) is not Parameter:
            return False
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
        and values[0].device.type != "meta"
    )
