"""Register an operator with torch: schema, dispatch to a backend, fake tensors and gradients, all in one place.

Plain tensors in plain eager mode take a direct way to the backend, which saves most of the time that torch spends on an
operator written in Python; everything that observes operators (compile, export, dispatch modes, tensor subclasses, the
profiler, tracing) sees the registered one. What transforms them, forward-mode derivatives and `torch.func`, takes the
ways of derivatives.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._autograd import _profiler_enabled
from torch._functorch import config as functorch_config
from torch._subclasses.functional_tensor import FunctionalTensorMode
from torch.nn import Parameter

from internimage.ops import backends
from internimage.ops.backends import Backend, choose
from internimage.ops.derivatives import (
    Operator,
    differentiate,
    differentiate_twice,
    is_dual_level,
    is_transformed,
    transform,
)

_library = torch.library.Library("internimage", "FRAGMENT")


def register_operator(
    name: str,
    *,
    tensors: tuple[str, ...],
    settings: str,
    make_settings: Callable[..., Any],
    output_shape: Callable[..., tuple[int | torch.SymInt, ...]],
    implementations: Mapping[str, Backend],
    exact: Callable[..., Tensor],
) -> Callable[[tuple[Tensor, ...], Any, str], Tensor]:
    """Define `internimage::<name>` and `internimage::<name>_backward`.

    Args:
        name: the operator's name.
        tensors: names of its tensor arguments; the first one decides device and dtype, all have a gradient and the
            images along their first axis.
        settings: schema of the arguments after the tensors, without the backend's name, which comes last.
        make_settings: the values of `settings` to the object that the backends take.
        output_shape: the tensors and that object to the shape of the output.
        implementations: backend name to backend, in the order in which "auto" tries them; one is "reference".
        exact: the tensors and that object to the output, in torch operators that have every derivative.

    Returns:
        A function (tensors, settings, backend) that runs the operator; `settings` iterates over what the schema lists.
    """
    backends.register(name, implementations)
    operator = _Registered(name, len(tensors), make_settings, output_shape, exact)
    arguments = ", ".join(f"Tensor {tensor}" for tensor in tensors) + f", {settings}, str backend"
    operator.define(arguments, ", ".join("Tensor" for _ in tensors))

    def run(values: tuple[Tensor, ...], chosen_settings: Any, backend: str) -> Tensor:
        if not is_plain(*values):
            return operator.run_observed(values, chosen_settings, backend)
        chosen = choose(name, backend, values[0].device.type, values[0].dtype)
        if torch.is_grad_enabled() and any(value.requires_grad for value in values):
            return _Direct.apply(chosen, operator, chosen_settings, backend, *values)
        return chosen.forward(*values, chosen_settings)

    return run


def register_inference_operator(
    name: str, schema: str, *, implementations: Mapping[str, Backend], fake: Callable[..., Any], maps: int = 1
) -> Callable[..., Any]:
    """Define `internimage::<name>`, which has no gradients and takes the first backend that can run.

    Args:
        name: the operator's name.
        schema: its arguments and results; the first argument is a tensor that decides device and dtype.
        implementations: backend name to backend, in the order in which they are tried.
        fake: the arguments to results of the right shapes, without values.
        maps: the number of arguments, the first ones, that are no parameters: what may be traced or transformed.

    Returns:
        A function that runs the operator on the arguments of the schema, by position.
    """
    backends.register(name, implementations)

    others = maps - 1  # beside the first one

    def run(x: Tensor, *values: Any) -> Any:
        return choose(name, "auto", x.device.type, x.dtype).forward(x, *values)

    _library.define(name + schema)
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"internimage::{name}", fake, lib=_library)
    registered = getattr(torch.ops.internimage, name)

    def call(x: Tensor, *values: Any) -> Any:
        if is_plain(x, *values[:others]):
            return run(x, *values)
        return registered(x, *values)

    return call


class _Registered(NamedTuple):
    """An operator as torch knows it; the arguments are those of `register_operator`."""

    name: str
    tensor_count: int
    make_settings: Callable[..., Any]
    output_shape: Callable[..., tuple[int | torch.SymInt, ...]]
    exact: Callable[..., Tensor]

    def define(self, arguments: str, results: str) -> None:
        """Tell torch the schemas, how to run the operator and its backward pass, their shapes and their gradients."""
        backward = f"{self.name}_backward"
        _library.define(f"{self.name}({arguments}) -> Tensor")
        _library.define(f"{backward}(Tensor grad, {arguments}) -> ({results})")
        _library.impl(self.name, self._forward, "CompositeExplicitAutograd")
        _library.impl(backward, self._backward, "CompositeExplicitAutograd")
        for name, fake, run in (
            (self.name, self._fake_forward, self._forward),
            (backward, self._fake_backward, self._backward),
        ):
            torch.library.register_fake(f"internimage::{name}", fake, lib=_library)
            seen = partial(self._functionalize, run)
            torch.library.register_torch_dispatch(f"internimage::{name}", FunctionalTensorMode, seen, lib=_library)
        for name, gradients, count in (
            (self.name, self._gradients, self.tensor_count),
            (backward, self._second_gradients, self.tensor_count + 1),
        ):
            save = partial(_save, count)
            torch.library.register_autograd(f"internimage::{name}", gradients, setup_context=save, lib=_library)

    @property
    def registered(self) -> Callable[..., Tensor]:
        """The operator of torch."""
        return getattr(torch.ops.internimage, self.name)

    @property
    def registered_backward(self) -> Callable[..., tuple[Tensor, ...]]:
        """Its backward pass, an operator of its own."""
        return getattr(torch.ops.internimage, f"{self.name}_backward")

    def bind(self, settings: Any, backend: str) -> Operator:
        """The operator with its settings, for derivatives.py."""

        def forward(*values: Tensor) -> Tensor:
            if is_plain(*values):
                return self._choose(backend, values[0]).forward(*values, settings)
            return self.registered(*values, *settings, backend)

        def backward(grad: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
            if is_plain(grad, *values) and torch._C._has_storage(grad):
                return self._choose(backend, values[0]).backward(grad, *values, settings)
            return self.registered_backward(grad, *values, *settings, backend)

        return Operator(forward, backward, lambda *values: self.exact(*values, settings))

    def run_observed(self, values: tuple[Tensor, ...], settings: Any, backend: str) -> Tensor:
        """Run where something transforms or observes operators."""
        if is_dual_level():
            return self.exact(*values, settings)
        if torch._C._are_functorch_transforms_active():
            if torch.compiler.is_compiling():
                return self.exact(*values, settings)
            return transform(self.bind(settings, backend), values)
        if backend != "reference":
            return self.registered(*values, *settings, backend)
        chosen = choose(self.name, backend, values[0].device.type, values[0].dtype)
        if not torch.is_grad_enabled() or not any(value.requires_grad for value in values) or _exporting():
            return chosen.forward(*values, settings)
        if torch.compiler.is_compiling():
            return self.registered(*values, *settings, backend)
        return _Direct.apply(chosen, self, settings, backend, *values)

    def _made(self, settings: Iterable[Any]) -> Any:
        """What the backends take, of the values as torch hands them over: its pairs are lists, no keys of a cache."""
        return self.make_settings(*(tuple(value) if isinstance(value, list) else value for value in settings))

    def _choose(self, backend: str, x: Tensor) -> Backend:
        return choose(self.name, backend, x.device.type, x.dtype)

    def _forward(self, *values: Any) -> Tensor:
        tensors, settings = values[: self.tensor_count], values[self.tensor_count : -1]
        return self._choose(values[-1], tensors[0]).forward(*tensors, self._made(settings))

    def _backward(self, grad: Tensor, *values: Any) -> tuple[Tensor, ...]:
        tensors, settings = values[: self.tensor_count], values[self.tensor_count : -1]
        return self._choose(values[-1], tensors[0]).backward(grad, *tensors, self._made(settings))

    def _functionalize(
        self, run: Callable[..., Any], mode: Any, func: Any, types: Any, args: tuple[Any, ...], kwargs: Any = None
    ) -> Any:
        """What a compiler sees of the operator: the launches of kernels that it can make itself, else one node."""
        is_launched = getattr(functorch_config, "decompose_custom_triton_ops", not _exporting())  # torch >= 2.7
        if not is_launched or not self._choose(args[-1], args[0]).is_traceable:
            return mode.__torch_dispatch__(func, types, args, kwargs)
        with mode:
            return run(*args)

    def _fake_forward(self, *values: Any) -> Tensor:
        tensors, settings = values[: self.tensor_count], values[self.tensor_count : -1]
        return tensors[0].new_empty(self.output_shape(*tensors, self._made(settings)))

    def _fake_backward(self, grad: Tensor, *values: Any) -> tuple[Tensor, ...]:
        return tuple(tensor.new_empty(tensor.shape) for tensor in values[: self.tensor_count])

    def _gradients(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = self.registered_backward(grad, *ctx.saved_tensors, *ctx.settings)
        return (*found, *(None for _ in ctx.settings))

    def _second_gradients(self, ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        *settings, backend = ctx.settings
        operator = self.bind(self._made(settings), backend)
        found = differentiate_twice(operator, ctx.saved_tensors, upstream)
        return (*found, *(None for _ in ctx.settings))


def _save(count: int, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:count])
    ctx.settings = inputs[count:]


class _Direct(torch.autograd.Function):
    """A backend with its gradients, without the registered operator around it."""

    @staticmethod
    def forward(
        ctx: Any, chosen: Backend, operator: _Registered, settings: Any, backend: str, *values: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*values)
        ctx.chosen, ctx.operator, ctx.settings, ctx.backend = chosen, operator, settings, backend
        return chosen.forward(*values, settings)

    # torch declares `*args`; there is one output and so one gradient.
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        values = ctx.saved_tensors
        if torch.is_grad_enabled() or is_dual_level():
            found = differentiate(ctx.operator.bind(ctx.settings, ctx.backend), grad, values)
        elif not torch._C._has_storage(grad):  # several gradients at once: torch.autograd.grad(is_grads_batched=True)
            found = ctx.operator.registered_backward(grad, *values, *ctx.settings, ctx.backend)
        else:
            found = ctx.chosen.backward(grad, *values, ctx.settings)
        return (None, None, None, None, *found)


def _exporting() -> bool:
    """Whether a graph is taken for another program, which wants ordinary operators."""
    if torch._C._get_tracing_state() is not None:
        return True
    # torch 2.6 does not tell an exporter from a compiler.
    is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return is_exporting()


def is_plain(*values: Tensor) -> bool:
    """Whether nothing but eager autograd would see an operator on these tensors."""
    return is_eager(*values) and not _profiler_enabled()


def is_eager(*values: Tensor) -> bool:
    """Whether an operator on these tensors runs at once, seen by nothing but reverse-mode autograd and the profiler."""
    for value in values:
        if type(value) is not Tensor and type(value) is not Parameter:
            return False
    return (
        not torch.compiler.is_compiling()
        and not is_transformed()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
        and not values[0].is_meta
    )
