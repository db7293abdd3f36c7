"""How the output of a residual branch is added to its shortcut."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

# The fields of Residual, in order, as torch writes them in the schema of an operator.
RESIDUAL_SCHEMA = (
    "Tensor? gamma, Tensor? norm_weight, Tensor? norm_bias, Tensor? next_weight, Tensor? next_bias, float eps"
)

NEXT_WEIGHT = 3  # index of `next_weight` in them


class Residual(NamedTuple):
    """How the output of a branch is added to its shortcut, and the norm of the sum; a part that is None is left out.

    Args:
        gamma: (C,) scale of the branch.
        norm_weight: (C,) weight of the layer norm of the branch's output.
        norm_bias: (C,) its bias.
        next_weight: (C,) weight of the layer norm of the sum.
        next_bias: (C,) its bias.
        eps: epsilon of both norms.
    """

    gamma: Tensor | None = None
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None
    next_weight: Tensor | None = None
    next_bias: Tensor | None = None
    eps: float = 1e-6

    @classmethod
    def of(
        cls, *, gamma: Tensor | None = None, norm: nn.LayerNorm | None = None, next_norm: nn.LayerNorm | None = None
    ) -> Residual:
        """Take the parameters of layer norms.

        Raises:
            ValueError: the norms differ in epsilon.

        Example:
            >>> Residual.of(next_norm=nn.LayerNorm(4, eps=1e-5)).eps
            1e-05
        """
        if norm is not None and next_norm is not None and norm.eps != next_norm.eps:
            raise ValueError(f"both norms must have the same epsilon, given {norm.eps} and {next_norm.eps}")
        first = (None, None) if norm is None else (norm.weight, norm.bias)
        second = (None, None) if next_norm is None else (next_norm.weight, next_norm.bias)
        given = norm or next_norm
        return cls(gamma, *first, *second, 1e-6 if given is None else given.eps)
