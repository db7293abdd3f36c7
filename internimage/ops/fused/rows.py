"""Norms, residual sums and GELU of rows with gradients: one kernel each on a GPU, torch's operators elsewhere.

The kernels keep the inputs alone and compute norms and GELU anew in the backward pass. They serve eager mode;
compilers, exporters and what differentiates in other ways see torch's operators, which they can fuse or transform.
Shapes: ... any leading sizes, C channels of a row, N images, the first size.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.ops import backends
from internimage.ops.backends import Backend
from internimage.ops.derivatives import is_dual_level
from internimage.ops.fused import reference
from internimage.ops.fused.residual import Residual
from internimage.ops.registration import is_eager
from internimage.ops.runtime.triton import support

INTERPRETING = support.interpreting()
_DTYPES = {torch.float32, torch.float16, torch.bfloat16}


def have_kernels(x: Tensor) -> bool:
    """Whether steps on the rows of `x` run as one kernel each here and now, gradients included.

    That is on a GPU in float32, float16 and bfloat16, in eager mode.
    """
    if (x.is_cpu and not INTERPRETING) or torch.compiler.is_compiling():
        return False
    return backends.choose("rows", "auto", x.device.type, x.dtype) is KERNELS and is_eager(x)


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, gelu: bool = False, dtype: torch.dtype | None = None
) -> Tensor:
    """Layer norm over the last axis, and a GELU behind it if asked for.

    Args:
        x: (..., C) of any floating dtype; statistics are float32 at least.
        weight: (C,).
        bias: (C,).
        eps: what is added to the variance.
        gelu: apply the exact (erf) GELU to the result.
        dtype: of the result, None for that of x.

    Example:
        >>> layer_norm(torch.tensor([[1.0, 3.0]]), torch.ones(2), torch.zeros(2), 0.0)
        tensor([[-1.,  1.]])
    """
    residual = Residual(norm_weight=weight, norm_bias=bias, eps=eps)
    return _steps(x, None, None, None, residual, gelu, x.dtype if dtype is None else dtype, None)[0]


def add_branch(
    shortcut: Tensor,
    y: Tensor,
    residual: Residual,
    *,
    shift: Tensor | None = None,
    keep: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return shortcut + keep * gamma * norm(y + shift), and `next_norm` of the sum, None without `next_norm`.

    Args:
        shortcut: (N, ..., C).
        y: (N, ..., C) output of a branch; the dtypes may differ, the sum has the wider one.
        residual: scale and norms, see `Residual`.
        shift: (C,) bias of the linear layer that returned y without it, None for none.
        keep: (N,) factor of the branch for each image (stochastic depth), None for 1.
        dtype: of the normalized sum, None for that of the sum.

    Example:
        >>> add_branch(torch.ones(1, 2), torch.ones(1, 2), Residual(), keep=torch.tensor([2.0]))[0]
        tensor([[3., 3.]])
    """
    total_dtype = torch.promote_types(shortcut.dtype, y.dtype)
    next_dtype = None if residual.next_weight is None else total_dtype if dtype is None else dtype
    return _steps(y, shift, shortcut, keep, residual, False, total_dtype, next_dtype)


def gelu_linear(x: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
    """A linear layer without bias on the exact (erf) GELU of x + shift, which keeps x alone for its gradients.

    Args:
        x: (..., I) output of a linear layer without its bias.
        shift: (I,) that bias, of any floating dtype.
        weight: (O, I) of the dtype of x.

    Returns:
        (..., O)

    Example:
        >>> gelu_linear(torch.zeros(1, 2), torch.ones(2), torch.ones(1, 2))
        tensor([[1.6827]])
    """
    if not _can_run(x, shift, weight):
        return _plain_gelu_linear(x, shift, weight)
    return _GeluLinear.apply(x.contiguous(), shift.contiguous(), weight)


def _steps(
    y: Tensor, shift: Tensor | None, shortcut: Tensor | None, keep: Tensor | None, residual: Residual, *settings: Any
) -> Any:
    """All steps as one kernel, or by torch's operators; `settings` are GELU and the dtypes of sum and norm."""
    *parameters, eps = residual
    if not _can_run(y, shift, shortcut, keep, *parameters):
        return _run_plain(y, shift, shortcut, keep, *residual, *settings)
    values = [None if t is None else t.contiguous() for t in (shift, shortcut, keep, *parameters)]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (y, *values)):
        return _Rows.apply(y.contiguous(), *values, eps, *settings)
    return _run(y.contiguous(), *values, eps, *settings)


def _run_plain(y: Tensor, *values: Any) -> tuple[Tensor, Tensor | None]:
    """All steps by torch's operators."""
    shift, shortcut, keep, *parameters, eps, gelu, dtype, next_dtype = values
    residual = Residual(*parameters, eps=eps)
    total = _branch(y, shift, keep, residual, gelu, dtype)
    total = total if shortcut is None else shortcut + total
    return total, None if next_dtype is None else _next_norm(total, residual, next_dtype)


def _run(y: Tensor, *values: Any) -> tuple[Tensor, Tensor | None]:
    """All steps as one kernel."""
    shift, shortcut, keep, *parameters, eps, gelu, dtype, next_dtype = values
    total = torch.empty_like(y, dtype=dtype)
    normed = None if next_dtype is None else torch.empty_like(y, dtype=next_dtype)
    kernels().rows(y, shift, shortcut, keep, total, normed, gelu, *parameters, eps)
    return total, normed


def _branch(
    y: Tensor, shift: Tensor | None, keep: Tensor | None, residual: Residual, gelu: bool, dtype: torch.dtype
) -> Tensor:
    """Return keep * gamma * GELU(norm(y + shift)) by torch's operators, float32 at least inside."""
    out = _wide(y) if shift is None else _wide(y) + shift
    if residual.norm_weight is not None:
        out = _norm(out, residual.norm_weight, residual.norm_bias, residual.eps)
    if gelu:
        out = F.gelu(out)
    if residual.gamma is not None:
        out = out * residual.gamma
    if keep is not None:
        out = out * keep.view(-1, *(1,) * (y.dim() - 1))
    return out.to(dtype)


def _next_norm(total: Tensor, residual: Residual, dtype: torch.dtype) -> Tensor:
    """The norm of the sum by torch's operators, float32 at least inside."""
    assert residual.next_weight is not None
    return _norm(_wide(total), residual.next_weight, residual.next_bias, residual.eps).to(dtype)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight.to(x.dtype), None if bias is None else bias.to(x.dtype), eps)


def _plain_gelu_linear(x: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
    return F.linear(F.gelu(x + shift).to(x.dtype), weight)


class _Rows(torch.autograd.Function):
    """All steps as one kernel; keeps the branch where a scale or a norm needs it, and the sum where a norm follows."""

    @staticmethod
    def forward(ctx: Any, *values: Any) -> Any:
        total, normed = _run(*values)
        y, shift, shortcut, keep, gamma, weight, bias, next_weight, next_bias, *ctx.settings = values
        needs_y = gamma is not None or weight is not None
        ctx.save_for_backward(
            *(y if needs_y else None, None if normed is None else total),
            *(keep, shift, gamma, weight, bias, next_weight, next_bias),
        )
        ctx.y_dtype, ctx.shortcut_dtype = y.dtype, None if shortcut is None else shortcut.dtype
        return total, normed

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_normed: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # torch: *args
        y, total, keep, shift, gamma, weight, bias, next_weight, next_bias = ctx.saved_tensors
        eps, gelu, *_ = ctx.settings
        if not _is_plain_backward(grad):
            return *_gradients(ctx, grad, grad_normed), *(None for _ in ctx.settings)
        grad = grad.contiguous()
        grad_y, grad_shortcut = torch.empty_like(grad, dtype=ctx.y_dtype), None
        if grad_normed is not None:
            grad_normed = grad_normed.contiguous()
            grad_shortcut = torch.empty_like(grad, dtype=ctx.shortcut_dtype)
        sums = kernels().rows_backward(
            *(grad, grad_normed, y, shift, total, keep, gelu, grad_y, grad_shortcut),
            *(gamma, weight, bias, next_weight, eps),
        )
        if grad_shortcut is None and ctx.shortcut_dtype is not None:
            grad_shortcut = grad.to(ctx.shortcut_dtype)
        found = iter(sums)
        of_shift, *of_parameters = (
            None if t is None else next(found).to(t.dtype) for t in (shift, gamma, weight, bias, next_weight, next_bias)
        )
        return grad_y, of_shift, grad_shortcut, None, *of_parameters, *(None for _ in ctx.settings)


def _gradients(ctx: Any, grad: Tensor, grad_normed: Tensor | None) -> tuple[Tensor | None, ...]:
    """What `_Rows.backward` returns for the tensors, by torch's operators, which have derivatives themselves."""
    y, total, keep, shift, *parameters = ctx.saved_tensors
    eps, gelu, dtype, next_dtype = ctx.settings
    residual = Residual(*parameters, eps=eps)
    of_next: list[Tensor | None] = [None, None]
    if grad_normed is not None:

        def norm(total: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return _next_norm(total, residual._replace(next_weight=weight, next_bias=bias), next_dtype)

        above, *of_next = torch.func.vjp(norm, total, *parameters[3:])[1](grad_normed)
        grad = grad + above
    names = ("shift", "gamma", "norm_weight", "norm_bias")
    of_branch = zip(names, (shift, *parameters[:3]), strict=True)
    given = {name: value for name, value in of_branch if value is not None}

    def branch(y: Tensor, given: dict[str, Tensor]) -> Tensor:
        shift, others = given.get("shift"), {name: value for name, value in given.items() if name != "shift"}
        return _branch(y, shift, keep, residual._replace(**others), gelu, dtype)

    y = grad.new_zeros(grad.shape, dtype=ctx.y_dtype) if y is None else y
    of_y, found = torch.func.vjp(branch, y, given)[1](grad)
    of_shortcut = None if ctx.shortcut_dtype is None else grad.to(ctx.shortcut_dtype)
    return of_y, found.get("shift"), of_shortcut, None, *(found.get(name) for name in names[1:]), *of_next


class _GeluLinear(torch.autograd.Function):
    """A linear layer on the GELU of a sum; keeps the sum's terms."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
        hidden = torch.empty_like(x)
        kernels().gelu(x, shift, hidden)
        ctx.save_for_backward(x, shift, weight)
        return F.linear(hidden, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]  # torch: *args
        x, shift, weight = ctx.saved_tensors
        if not _is_plain_backward(grad):
            return torch.func.vjp(_plain_gelu_linear, x, shift, weight)[1](grad)
        hidden, grad_x, of_shift = kernels().gelu_backward(grad @ weight, x, shift)
        of_weight = grad.flatten(0, -2).t() @ hidden.flatten(0, -2)
        return grad_x, of_shift.to(shift.dtype), of_weight


def _is_plain_backward(grad: Tensor) -> bool:
    """Whether nothing differentiates the backward pass, and its gradient is a single one."""
    return not torch.is_grad_enabled() and not is_dual_level() and torch._C._has_storage(grad)


def _can_run(*values: Tensor | None) -> bool:
    given = [value for value in values if value is not None]
    return have_kernels(given[0]) and given[0].numel() > 0 and is_eager(*given) and {t.dtype for t in given} <= _DTYPES


@cache
def kernels() -> Any:
    """The Triton kernels, imported at their first use."""
    return importlib.import_module("internimage.ops.fused.kernel_triton")


KERNELS = Backend(support.missing_reason, _run)
backends.register("rows", {"triton": KERNELS, "reference": Backend(reference.missing_reason, _run_plain)})
