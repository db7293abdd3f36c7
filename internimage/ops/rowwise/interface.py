"""Fused inference steps of a block: GELU in place, residual sums with norms, depth-wise convolution with norm and GELU.

They have no gradients: `can_fuse` says when a block may use them instead of the separate torch operators.
Shapes: R rows (any leading sizes), C channels; N images, H W map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from internimage.ops.registration import is_plain
from internimage.ops.rowwise import kernel_cpp, reference
from internimage.ops.rowwise.reference import Branch
from internimage.ops.sampling import expect_shape

_library = torch.library.Library("internimage", "FRAGMENT")
_library.define("gelu_(Tensor(a!) x) -> ()")
_library.define(
    "residual_(Tensor(a!) y, Tensor shortcut, Tensor? gamma, Tensor? weight, Tensor? bias, float eps) -> ()"
)
_library.define(
    "residual_norm_(Tensor(a!) y, Tensor shortcut, Tensor? gamma, Tensor? weight, Tensor? bias, "
    "Tensor next_weight, Tensor next_bias, float eps) -> Tensor"
)
_library.define(
    "add_branch_(Tensor(a!) x, Tensor y, Tensor? gamma, Tensor? weight, Tensor? bias, "
    "Tensor? next_weight, Tensor? next_bias, Tensor(b!)? normed, float eps) -> ()"
)
_library.define(
    "depthwise_norm_gelu(Tensor x, Tensor weight, Tensor bias, Tensor norm_weight, Tensor norm_bias, float eps) "
    "-> Tensor"
)


class _Steps(NamedTuple):
    """The functions of one implementation, as in reference.py."""

    gelu_: Callable[..., None]
    residual_: Callable[..., Tensor | None]
    add_branch_: Callable[..., None]
    depthwise_norm_gelu: Callable[..., Tensor]


_COMPILED = _Steps(kernel_cpp.gelu_, kernel_cpp.residual_, kernel_cpp.add_branch_, kernel_cpp.depthwise_norm_gelu)
_PLAIN = _Steps(reference.gelu_, reference.residual_, reference.add_branch_, reference.depthwise_norm_gelu)


def can_fuse(x: Tensor, *, backend: str = "auto") -> bool:
    """Whether the compiled steps serve for `x` here and now.

    They do without gradients, for eager float32, float16 or bfloat16 tensors on a CPU outside of autocast; a compiler
    or an exporter gets the separate operators, which it can fuse or translate itself.
    """
    if torch.is_grad_enabled() or backend not in ("auto", "cpp") or x.device.type != "cpu":
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    return kernel_cpp.missing_reason("cpu", x.dtype) is None


def gelu_(x: Tensor) -> Tensor:
    """Replace a contiguous tensor of any shape by its exact (erf) GELU, to 3e-7 in float32, and return it.

    Example:
        >>> gelu_(torch.tensor([0.0, 1.0]))
        tensor([0.0000, 0.8413])
    """
    _expect_contiguous("x", x)
    if is_plain(x):
        _steps(x).gelu_(x)
    else:
        torch.ops.internimage.gelu_(x)
    return x


def residual_(
    y: Tensor,
    shortcut: Tensor,
    *,
    gamma: Tensor | None = None,
    norm: nn.LayerNorm | None = None,
    next_norm: nn.LayerNorm | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """Replace y by shortcut + gamma * norm(y) and return next_norm of the sum, or the sum itself without `next_norm`.

    Args:
        y: (..., C) contiguous output of a branch, overwritten by the sum.
        shortcut: tensor of the same shape, contiguous.
        gamma: (C,) scale of the branch, or None.
        norm: layer norm of the branch's output, or None.
        next_norm: layer norm of the sum, or None.
        eps: epsilon of both norms.

    Returns:
        (..., C) normalised sum, or `y` when `next_norm` is None.

    Raises:
        ValueError: shapes differ or a tensor is not contiguous.

    Example:
        >>> residual_(torch.ones(1, 2), torch.ones(1, 2))
        tensor([[2., 2.]])
    """
    expect_shape("shortcut", shortcut, tuple(y.shape), "the shape of y")
    _expect_contiguous("y", y)
    _expect_contiguous("shortcut", shortcut)
    if is_plain(y, shortcut):
        branch = Branch(gamma, _parameters(norm), _parameters(next_norm), eps)
        normed = _steps(y).residual_(y, shortcut, branch)
        return y if normed is None else normed
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    if next_norm is None:
        torch.ops.internimage.residual_(y, shortcut, gamma, weight, bias, eps)
        return y
    return torch.ops.internimage.residual_norm_(y, shortcut, gamma, weight, bias, next_norm.weight, next_norm.bias, eps)


def add_branch_(
    x: Tensor,
    y: Tensor,
    *,
    gamma: Tensor | None = None,
    norm: nn.LayerNorm | None = None,
    next_norm: nn.LayerNorm | None = None,
    normed: Tensor | None = None,
    eps: float = 1e-6,
) -> None:
    """Add gamma * norm(y) to x and write next_norm of the sum to `normed`: `residual_` where x may be overwritten.

    Args:
        x: (..., C) contiguous, replaced by the sum.
        y: (..., C) contiguous output of a branch, left as it is.
        gamma: (C,) scale of the branch, or None.
        norm: layer norm of the branch's output, or None.
        next_norm: layer norm of the sum, or None.
        normed: (..., C) contiguous, filled with `next_norm` of the sum; required with it and only then.
        eps: epsilon of both norms.

    Raises:
        ValueError: shapes differ, a tensor is not contiguous, or one of `next_norm` and `normed` is missing.

    Example:
        >>> x = torch.ones(1, 2)
        >>> add_branch_(x, torch.ones(1, 2))
        >>> x
        tensor([[2., 2.]])
    """
    if (next_norm is None) != (normed is None):
        raise ValueError("expected `next_norm` and `normed` together, given one of them")
    named = {"x": x, "y": y} if normed is None else {"x": x, "y": y, "normed": normed}
    for name, tensor in named.items():
        expect_shape(name, tensor, tuple(x.shape), "the shape of x")
        _expect_contiguous(name, tensor)
    if is_plain(*named.values()):
        _steps(x).add_branch_(x, y, Branch(gamma, _parameters(norm), _parameters(next_norm), eps), normed)
        return
    weight, bias = _parameters(norm) or (None, None)
    next_weight, next_bias = _parameters(next_norm) or (None, None)
    torch.ops.internimage.add_branch_(x, y, gamma, weight, bias, next_weight, next_bias, normed, eps)


def depthwise_norm_gelu(x: Tensor, conv: nn.Conv2d, norm: nn.LayerNorm) -> Tensor:
    """Depth-wise convolution of a contiguous (N, H, W, C) map, then layer norm and GELU.

    Args:
        x: (N, H, W, C) contiguous map.
        conv: depth-wise convolution with a bias, stride 1, odd kernel, "same" padding.
        norm: layer norm over C.

    Returns:
        (N, H, W, C) contiguous map.

    Example:
        >>> conv = nn.Conv2d(8, 8, 3, padding=1, groups=8).requires_grad_(False)
        >>> depthwise_norm_gelu(torch.rand(1, 5, 6, 8), conv, nn.LayerNorm(8)).shape
        torch.Size([1, 5, 6, 8])
    """
    size = conv.kernel_size[0]
    if conv.bias is None or conv.groups != x.shape[-1] or size % 2 == 0 or conv.padding != (size // 2, size // 2):
        raise ValueError(f"expected a depth-wise 'same' convolution with bias for {x.shape[-1]} channels, given {conv}")
    _expect_contiguous("x", x)
    parameters = conv.weight, conv.bias, norm.weight, norm.bias, norm.eps
    if is_plain(x):
        return _steps(x).depthwise_norm_gelu(x, *parameters)
    return torch.ops.internimage.depthwise_norm_gelu(x, *parameters)


def _expect_contiguous(name: str, x: Tensor) -> None:
    if not x.is_contiguous():
        raise ValueError(f"{name} must be contiguous, given strides {x.stride()}; call .contiguous() first")


def _steps(x: Tensor) -> _Steps:
    return _COMPILED if kernel_cpp.missing_reason(x.device.type, x.dtype) is None else _PLAIN


def _parameters(norm: nn.LayerNorm | None) -> tuple[Tensor, Tensor] | None:
    return None if norm is None else _pair(norm.weight, norm.bias)


def _pair(weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor] | None:
    return None if weight is None or bias is None else (weight, bias)


def _residual(
    y: Tensor, shortcut: Tensor, gamma: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> None:
    _steps(y).residual_(y, shortcut, Branch(gamma, _pair(weight, bias), None, eps))


def _residual_norm(
    y: Tensor,
    shortcut: Tensor,
    gamma: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    next_weight: Tensor,
    next_bias: Tensor,
    eps: float,
) -> Tensor | None:
    return _steps(y).residual_(y, shortcut, Branch(gamma, _pair(weight, bias), (next_weight, next_bias), eps))


def _add_branch(
    x: Tensor,
    y: Tensor,
    gamma: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    next_weight: Tensor | None,
    next_bias: Tensor | None,
    normed: Tensor | None,
    eps: float,
) -> None:
    _steps(x).add_branch_(x, y, Branch(gamma, _pair(weight, bias), _pair(next_weight, next_bias), eps), normed)


def _depthwise(x: Tensor, *parameters) -> Tensor:
    return _steps(x).depthwise_norm_gelu(x, *parameters)


_library.impl("gelu_", lambda x: _steps(x).gelu_(x), "CompositeExplicitAutograd")
_library.impl("residual_", _residual, "CompositeExplicitAutograd")
_library.impl("residual_norm_", _residual_norm, "CompositeExplicitAutograd")
_library.impl("add_branch_", _add_branch, "CompositeExplicitAutograd")
_library.impl("depthwise_norm_gelu", _depthwise, "CompositeExplicitAutograd")
torch.library.register_fake("internimage::gelu_", lambda x: None, lib=_library)
torch.library.register_fake("internimage::residual_", lambda *a: None, lib=_library)
torch.library.register_fake("internimage::residual_norm_", lambda y, *a: torch.empty_like(y), lib=_library)
torch.library.register_fake("internimage::add_branch_", lambda *a: None, lib=_library)
torch.library.register_fake("internimage::depthwise_norm_gelu", lambda x, *a: torch.empty_like(x), lib=_library)
