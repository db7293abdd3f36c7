"""Fused inference steps of a block: GELU in place, residual sums with norms, depth-wise convolution with norm and GELU.

They have no gradients: `can_fuse` says when a block may use them instead of the separate torch operators.
Shapes: R rows (any leading sizes), C channels; N images, H W map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from internimage.ops.derivatives import is_transformed
from internimage.ops.registration import is_plain
from internimage.ops.rowwise import kernel_cpp, reference
from internimage.ops.rowwise.branch import BRANCH_SCHEMA, Branch
from internimage.ops.sampling import expect_shape

_library = torch.library.Library("internimage", "FRAGMENT")
_library.define("gelu_(Tensor(a!) x) -> ()")
_library.define(f"residual_(Tensor(a!) y, Tensor shortcut, {BRANCH_SCHEMA}) -> ()")
_library.define(f"residual_norm_(Tensor(a!) y, Tensor shortcut, {BRANCH_SCHEMA}) -> Tensor")
_library.define(f"add_branch_(Tensor(a!) x, Tensor y, Tensor(b!)? normed, {BRANCH_SCHEMA}) -> ()")
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

    They do without gradients, for eager float32, float16 or bfloat16 tensors on a CPU outside of autocast, of
    forward-mode derivatives and of `torch.func`; a compiler or an exporter gets the separate operators, which it can
    fuse or translate itself.
    """
    if torch.is_grad_enabled() or backend not in ("auto", "cpp") or x.device.type != "cpu":
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or is_transformed():
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


def residual_(y: Tensor, shortcut: Tensor, branch: Branch) -> Tensor | None:
    """Replace y by shortcut + gamma * norm(y) and return next_norm of the sum.

    Args:
        y: (..., C) contiguous output of a branch, overwritten by the sum.
        shortcut: tensor of the same shape, contiguous.
        branch: scale and norms, see `Branch`.

    Returns:
        (..., C) normalised sum, or None without `next_norm`.

    Raises:
        ValueError: shapes differ or a tensor is not contiguous.

    Example:
        >>> y = torch.ones(1, 2)
        >>> residual_(y, torch.ones(1, 2), Branch())
        >>> y
        tensor([[2., 2.]])
    """
    expect_shape("shortcut", shortcut, tuple(y.shape), "the shape of y")
    _expect_contiguous("y", y)
    _expect_contiguous("shortcut", shortcut)
    if is_plain(y, shortcut):
        return _steps(y).residual_(y, shortcut, branch)
    if branch.next_norm is not None:
        return torch.ops.internimage.residual_norm_(y, shortcut, *branch.flat())
    torch.ops.internimage.residual_(y, shortcut, *branch.flat())
    return None


def add_branch_(x: Tensor, y: Tensor, branch: Branch, normed: Tensor | None = None) -> None:
    """Add gamma * norm(y) to x and write next_norm of the sum to `normed`: `residual_` where x may be overwritten.

    Args:
        x: (..., C) contiguous, replaced by the sum.
        y: (..., C) contiguous output of a branch, left as it is.
        branch: scale and norms, see `Branch`.
        normed: (..., C) contiguous, filled with `next_norm` of the sum; required with it and only then.

    Raises:
        ValueError: shapes differ, a tensor is not contiguous, or one of `next_norm` and `normed` is missing.

    Example:
        >>> x = torch.ones(1, 2)
        >>> add_branch_(x, torch.ones(1, 2), Branch())
        >>> x
        tensor([[2., 2.]])
    """
    if (branch.next_norm is None) != (normed is None):
        raise ValueError("expected `next_norm` and `normed` together, given one of them")
    named = {"x": x, "y": y} if normed is None else {"x": x, "y": y, "normed": normed}
    for name, tensor in named.items():
        expect_shape(name, tensor, tuple(x.shape), "the shape of x")
        _expect_contiguous(name, tensor)
    if is_plain(*named.values()):
        _steps(x).add_branch_(x, y, branch, normed)
    else:
        torch.ops.internimage.add_branch_(x, y, normed, *branch.flat())


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


def _residual(y: Tensor, shortcut: Tensor, *branch: Any) -> Tensor | None:
    return _steps(y).residual_(y, shortcut, Branch.from_flat(*branch))


def _add_branch(x: Tensor, y: Tensor, normed: Tensor | None, *branch: Any) -> None:
    _steps(x).add_branch_(x, y, Branch.from_flat(*branch), normed)


def _depthwise(x: Tensor, *parameters) -> Tensor:
    return _steps(x).depthwise_norm_gelu(x, *parameters)


_library.impl("gelu_", lambda x: _steps(x).gelu_(x), "CompositeExplicitAutograd")
_library.impl("residual_", _residual, "CompositeExplicitAutograd")
_library.impl("residual_norm_", _residual, "CompositeExplicitAutograd")
_library.impl("add_branch_", _add_branch, "CompositeExplicitAutograd")
_library.impl("depthwise_norm_gelu", _depthwise, "CompositeExplicitAutograd")
torch.library.register_fake("internimage::gelu_", lambda x: None, lib=_library)
torch.library.register_fake("internimage::residual_", lambda *a: None, lib=_library)
torch.library.register_fake("internimage::residual_norm_", lambda y, *a: torch.empty_like(y), lib=_library)
torch.library.register_fake("internimage::add_branch_", lambda *a: None, lib=_library)
torch.library.register_fake("internimage::depthwise_norm_gelu", lambda x, *a: torch.empty_like(x), lib=_library)
